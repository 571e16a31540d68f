-- Extends the leases of all running attempts at once. $1 ids and $2 tokens, sorted by id, $3 the lease in seconds.
--
-- Waits for locks, in id order: a row that somebody else has locked for a moment must not look like a lost lease.
-- A pair that is missing from the answer has lost its lease.
with held as materialized (
    select task.id, task.lease_token
    from unnest($1::uuid[], $2::uuid[]) as mine (id, token)
    join agent_tasks task on task.id = mine.id
    where task.lease_token = mine.token and task.status || '' = 'processing'
    order by task.id
    for update of task
)
update agent_tasks task
set lease_expires_at = clock_timestamp() + make_interval(secs => $3)
from held
where task.id = held.id and task.lease_token = held.lease_token and task.status || '' = 'processing'
returning task.lease_token, task.cancel_requested_at is not null as cancel_requested
