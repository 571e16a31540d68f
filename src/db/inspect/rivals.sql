-- Functions that make tasks `processing`, other than ours and than triggers.
select format('%I.%I', nspname, proname), proname::text
from pg_proc
join pg_namespace on pg_namespace.oid = pronamespace
where nspname !~ '^(pg_|information_schema$)'
    and proname !~ '^agent_tasks_[a-z_]+_v[0-9]+$'
    and prorettype <> 'trigger'::regtype
    and prosrc ~* '\mupdate\s+(only\s+)?("?\w+"?\s*\.\s*)?"?agent_tasks\M'
    and prosrc ~* '''processing'''
order by 1
