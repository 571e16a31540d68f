-- The second half of every claim: what `picked` names becomes `processing` under a fresh lease.
--
-- $1 lease in seconds, $2 who claims. `status || ''` keeps the planner on the primary key and re-checks the row that was
-- locked: whatever plan is chosen, a task that is no longer pending is not claimed. Times and numbers leave as float8
-- or text: a row that others filled with infinity or rubbish must fail alone, not with the claim.
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
    -- An array, not a join: for a join with a small table the planner would rather read all finished tasks.
    where task.id = any (array(select picked.id from picked)) and task.status || '' = 'pending'
    returning task.*
)
select
    claimed.id,
    claimed.lease_token,
    claimed.attempt,
    claimed.task_type::text,
    claimed.agent_type::text,
    claimed.user_id,
    claimed.context_id,
    claimed.context_type::text,
    claimed.priority::text,
    coalesce(claimed.retry_count, 0) as retry_count,
    coalesce(claimed.max_retries, kind.max_retries) as max_retries,
    kind.retry_base_seconds,
    coalesce(claimed.timeout_seconds, kind.timeout_seconds) as timeout_seconds,
    case when octet_length(input.text) <= 16777216 then input.text end as context_json,
    coalesce(octet_length(input.text), pg_column_size(claimed.context_json)) as context_bytes,
    claimed.created_at,
    claimed.created_by::text,
    claimed.trace_context,
    (extract(epoch from clock_timestamp()) - extract(epoch from claimed.scheduled_for))::float8 as waited_seconds
from claimed
left join task_types kind on kind.task_type = claimed.task_type
-- An input of hundreds of megabytes must not be sent to us. Its stored size is known without reading it; `offset 0` has
-- the text made once.
cross join lateral (
    select case when pg_column_size(claimed.context_json) <= 16777216 then claimed.context_json::text end as text
    offset 0
) input
order by
    case claimed.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end,
    claimed.scheduled_for,
    claimed.id
