-- Gives ended tasks a new life: due now, with a full budget of retries. $1 ids.
with ended as materialized (
    select task.id
    from agent_tasks task
    where task.id = any ($1::uuid[]) and task.status in ('failed', 'cancelled', 'completed')
    order by task.id
    for no key update
),
redriven as (
    update agent_tasks task
    set status = 'pending',
        scheduled_for = clock_timestamp(),
        retry_count = 0,
        crash_count = 0,
        result_json = null,
        completed_at = null,
        cancel_requested_at = null,
        lease_token = null
    from ended
    where task.id = ended.id
    returning task.id
)
select redriven.id, pg_notify('agent_tasks', '')::text as told
from redriven
