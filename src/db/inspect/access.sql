-- What this role lacks of what a worker needs. $1, $2: whether tasks and log rows are to be deleted, too.
with wanted (name, privileges) as (
    values
        ('agent_tasks', array['select', 'insert', 'update'] || case when $1 then 'delete' end),
        ('agent_actions_log', array['select', 'insert'] || case when $2 then 'delete' end),
        ('task_types', array['select']),
        ('agent_tasks_wake', array['select', 'insert', 'update']),
        ('task_processor_migrations', array['select'])
),
present as (
    select name, privileges, to_regclass(name)::oid as id from wanted
)
select
    name,
    (
        select string_agg(privilege, ', ')
        from unnest(privileges) privilege
        where privilege is not null and not has_table_privilege(id, privilege)
    ),
    row_security_active(id)
from present
where id is not null
union all
select 'function ' || proname, 'execute', false
from present
join pg_class on pg_class.oid = id
join pg_proc on pronamespace = relnamespace and proname ~ '^agent_tasks_[a-z_]+_v[0-9]+$'
where present.name = 'agent_tasks' and not has_function_privilege(pg_proc.oid, 'execute')
order by 1
