-- Takes back tasks whose lease expired: their process died, or lost the database and with it the right to go on.
--
-- $1 the default timeout and $2 the adoption window in seconds, $3 how many at the most, $4 how many seconds ago a lease
-- must have expired, and for how long the server must have been up.
--
-- * The token is taken off the row: an ending that still comes for it is stale, even if the task has failed.
-- * A row without a lease was left `processing` by an older processor. It is taken back only while it is young enough
--   to be missed by somebody, and old enough not to be running: adoption never runs old work by surprise.
-- * Rows that are just being ended or renewed are locked, and skipped.
with expired as materialized (
    select task.id
    from agent_tasks task
    where task.status = 'processing'
        and (
            task.lease_expires_at < statement_timestamp() - make_interval(secs => $4)
            or (
                task.lease_expires_at is null
                and coalesce(task.last_attempted_at, task.scheduled_for) between
                    statement_timestamp() - make_interval(secs => $2)
                    and statement_timestamp() - make_interval(secs => coalesce(task.timeout_seconds, $1))
            )
        )
        and pg_postmaster_start_time() < statement_timestamp() - make_interval(secs => $4)
    order by task.id
    limit $3
    for no key update skip locked
),
rescued as (
    update agent_tasks task
    set status = case
            when task.cancel_requested_at is not null then 'cancelled'
            when task.crash_count >= 2 then 'failed'
            else 'pending'
        end,
        crash_count = task.crash_count + 1,
        lease_token = null,
        lease_expires_at = null,
        error_log = case
            when task.crash_count >= 2 then 'poison: its process died three times in a row while running it'
            else coalesce(task.error_log, 'its process died while running it')
        end,
        result_json = case
            when task.crash_count >= 2 and task.cancel_requested_at is null then jsonb_build_object(
                'error', 'poison: its process died three times in a row while running it'
            )
            else task.result_json
        end,
        completed_at = case
            when task.crash_count >= 2 or task.cancel_requested_at is not null then clock_timestamp()
            else task.completed_at
        end
    from expired
    where task.id = expired.id and task.status || '' = 'processing'
    returning task.*
),
entry as (
    select
        'recover' as action,
        rescued.id, task_type, user_id, attempt,
        null::uuid as lease_token,
        null::int4 as latency_ms,
        case
            when octet_length(context_json::text) <= 8192 then context_json
            else jsonb_build_object('truncated', true, 'sizeBytes', octet_length(context_json::text))
        end as input_data,
        null::jsonb as output_data,
        'the lease expired, crash ' || crash_count as error,
        null::jsonb as usage
    from rescued
)
