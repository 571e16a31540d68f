-- Puts back what this process claimed without learning of it: the reply to a claim was lost.
--
-- $1 who claimed, $2 the tokens it knows of, $3 a database time, $4 for how many seconds the reply to a claim is good.
--
-- The caller took down its tokens *after* it had received $3 from the database, and throws away a claim that was
-- answered more than $4 seconds after it was sent. So a row that was claimed $4 seconds before $3 and whose token
-- is not in the list is unknown to it for ever.
with unknown as materialized (
    select task.id
    from agent_tasks task
    where task.status = 'processing'
        and task.claimed_by = $1
        and task.last_attempted_at < $3::timestamptz - make_interval(secs => $4)
        and task.lease_token <> all ($2::uuid[])
    order by task.id
    for no key update skip locked
),
released as (
    update agent_tasks task
    set status = case when task.cancel_requested_at is null then 'pending' else 'cancelled' end,
        completed_at = case when task.cancel_requested_at is null then task.completed_at else clock_timestamp() end,
        lease_token = null,
        lease_expires_at = null
    from unknown
    where task.id = unknown.id and task.status || '' = 'processing'
    returning task.*
),
entry as (
    select
        'release' as action,
        released.id, task_type, user_id, attempt,
        null::jsonb as input_data,
        null::jsonb as output_data,
        'the reply to the claim was lost' as error
    from released
)
