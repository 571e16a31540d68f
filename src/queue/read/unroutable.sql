-- Types with pending tasks, other than $1, and how many of each, counted up to $2. The types are found by skipping from
-- one lane of the index agent_tasks_due to the next: the tasks of known types, however many, are never read.
with recursive types as (
    (
        select task.task_type
        from agent_tasks task
        where task.status = 'pending' and task.crash_count < 2
        order by task.task_type
        limit 1
    )
    union all
    select (
        select task.task_type
        from agent_tasks task
        where task.status = 'pending' and task.crash_count < 2 and task.task_type > types.task_type
        order by task.task_type
        limit 1
    )
    from types
    where types.task_type is not null
)
select types.task_type::text, counted.tasks
from types
cross join lateral (
    select count(*) as tasks
    from (
        select from agent_tasks task
        where task.status = 'pending' and task.crash_count < 2 and task.task_type = types.task_type
        -- The index's order: without it a plan may hope to find enough in the table, and read all that has ended.
        order by case task.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end
        limit $2
    ) pending
) counted
where types.task_type <> all ($1::text[])
order by types.task_type
