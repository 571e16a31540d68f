-- Extends the leases of all running attempts at once. $1 ids and $2 tokens, sorted by id, $3 the lease in seconds.
--
-- Waits for nobody: a row that somebody else has locked must not cost the other leases their renewal. Such a pair is
-- answered without a `cancel_requested`: its token was still on the row, and its lease was not extended. A pair that is
-- missing from the answer has lost its lease. `no key`: a foreign key's lock is not in the way.
with mine as materialized (
    select * from unnest($1::uuid[], $2::uuid[]) as m (id, token)
),
held as materialized (
    select task.id, task.lease_token
    from mine
    join agent_tasks task on task.id = mine.id
    where task.lease_token = mine.token and task.status || '' = 'processing'
    order by task.id
    for no key update of task skip locked
),
extended as (
    update agent_tasks task
    set lease_expires_at = clock_timestamp() + make_interval(secs => $3)
    from held
    where task.id = held.id and task.lease_token = held.lease_token and task.status || '' = 'processing'
    returning task.lease_token, task.cancel_requested_at is not null as cancel_requested
)
select mine.token, extended.cancel_requested
from mine
left join extended on extended.lease_token = mine.token
where extended.lease_token is not null
    or exists (
        select from agent_tasks task
        where task.id = mine.id and task.lease_token = mine.token and task.status || '' = 'processing'
    )
