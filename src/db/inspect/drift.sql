-- What stands in the schema of `agent_tasks`, a line each: kind, name, and what has to be as the migrations make it.
-- Of definitions only what a customer's other column types leave alone: no casts, parentheses, spaces or schemas.
with place as (
    select relnamespace as schema from pg_class where oid = to_regclass('agent_tasks')
),
relations as (
    select pg_class.oid, relname, relkind from pg_class join place on relnamespace = schema
)
select 'table', relname::text, ''
from relations
where relkind in ('r', 'p')
union all
select 'column', relname || '.' || attname, format_type(atttypid, atttypmod)
from relations
join pg_attribute on attrelid = relations.oid
where relkind in ('r', 'p') and attnum > 0 and not attisdropped
union all
select
    'index',
    relname::text,
    regexp_replace(
        regexp_replace(pg_get_indexdef(oid), '^CREATE (UNIQUE )?INDEX .* USING ', '\1'),
        '::(text|character varying)|[()\s]', '', 'g'
    ) || case when not indisvalid then ' invalid' else '' end
from relations
join pg_index on indexrelid = relations.oid
union all
select 'function', proname::text, md5(prosrc)
from pg_proc
join place on pronamespace = schema
where proname ~ '^agent_tasks_'
union all
select 'trigger', relname || '.' || tgname, case tgenabled when 'D' then 'disabled' else 'enabled' end
from relations
join pg_trigger on tgrelid = relations.oid
where not tgisinternal
union all
select 'default', relname || '.' || attname, ''
from relations
join pg_attribute on attrelid = relations.oid
where relname = 'agent_tasks' and atthasdef and not attisdropped
order by 1, 2
