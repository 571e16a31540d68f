-- Active jobs of `pg_cron` in this database that make tasks `processing`, by themselves or by one of the functions $1.
select jobid::int8, schedule::text, command::text
from cron.job
where active
    and database = current_database()
    and (
        (
            command ~* '\mupdate\s+(only\s+)?("?\w+"?\s*\.\s*)?"?agent_tasks\M'
            and command ~* '''processing'''
        )
        or exists (select from unnest($1::text[]) name where command ~* ('\m' || name || '"?\s*\('))
    )
order by jobid
