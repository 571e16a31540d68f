-- The last part of every claim. `status || ''` implies no partial index, which keeps the planner on what was picked, and
-- re-checks the row that was locked: whatever plan is chosen, a task that is no longer pending is not claimed. Times and
-- numbers leave as float8 or text: a row that others filled with infinity or rubbish must fail alone, not with the claim.
    and task.status || '' = 'pending'
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
