-- The second part of every claim: what `picked` names becomes `processing` under a fresh lease. The statement goes on with
-- the name (see claim.rs), by an array and not by a join: for a join with a small table the planner would rather read
-- all finished tasks.
--
-- $1 lease in seconds, $2 who claims.
, claimed as (
    update agent_tasks task
    set status = 'processing',
        lease_token = gen_random_uuid(),
        lease_expires_at = clock_timestamp() + make_interval(secs => $1),
        claimed_by = $2,
        -- At the end of the numbers it stands still: what fences an attempt is its token.
        attempt = least(task.attempt, 2147483646) + 1,
        last_attempted_at = clock_timestamp(),
        -- A row that somebody set to pending again may still carry the request of its former life.
        cancel_requested_at = null,
        -- A task run ahead of its time and then released is due at once.
        scheduled_for = least(task.scheduled_for, clock_timestamp())
