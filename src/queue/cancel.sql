-- Cancels tasks: a waiting one at once, a running one by asking the process that runs it. $1 ids, $2 the reason.
with wanted as materialized (
    select task.id, task.status
    from agent_tasks task
    where task.id = any ($1::uuid[]) and task.status in ('pending', 'processing')
    order by task.id
    for no key update
),
cancelled as (
    update agent_tasks task
    set status = case when wanted.status = 'pending' then 'cancelled' else task.status end,
        cancel_requested_at = clock_timestamp(),
        completed_at = case when wanted.status = 'pending' then clock_timestamp() else task.completed_at end,
        result_json = case
            when wanted.status = 'pending' then jsonb_build_object('reason', $2::text, 'cancelled_at', clock_timestamp())
            else task.result_json
        end
    from wanted
    where task.id = wanted.id
    returning task.*
),
entry as (
    select
        'cancel' as action,
        cancelled.id, task_type, user_id, attempt,
        null::jsonb as input_data,
        result_json as output_data,
        $2::text as error
    from cancelled
    where cancelled.status = 'cancelled'
)
