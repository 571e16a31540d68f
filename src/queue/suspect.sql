-- One due task whose process died under it twice: it is run with no other in its process. $3 the task types.
from agent_tasks task
where task.status = 'pending'
    and task.crash_count >= 2
    and task.scheduled_for <= statement_timestamp()
    and task.task_type = any ($3::text[])
    and not exists (select from task_types kind where kind.task_type = task.task_type and kind.paused)
order by task.scheduled_for, task.id
limit 1
for no key update of task skip locked
