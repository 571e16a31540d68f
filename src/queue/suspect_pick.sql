-- One due task whose process died under it twice. It changes nothing, and passes over what others are changing.
-- $1 the task types, $2 the ids to leave out.
select task.id
from agent_tasks task
where task.status = 'pending'
    and task.crash_count >= 2
    and task.scheduled_for <= statement_timestamp()
    and task.task_type = any ($1::text[])
    and task.id <> all ($2::uuid[])
    and not exists (select from task_types kind where kind.task_type = task.task_type and kind.paused)
order by task.scheduled_for, task.id
limit 1
for no key update of task skip locked
