-- The second half of a rescue: what `expired` names is given back, cancelled or given up.
, rescued as (
    update agent_tasks task
    set status = case
            when task.cancel_requested_at is not null then 'cancelled'
            when task.crash_count >= 2 then 'failed'
            else 'pending'
        end,
        crash_count = least(task.crash_count, 2147483646) + 1,
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
        case
            -- The stored size: to print a huge input only to measure it would cost everybody, or fail.
            when pg_column_size(context_json) <= 8192 then context_json
            else jsonb_build_object('truncated', true, 'sizeBytes', pg_column_size(context_json))
        end as input_data,
        null::jsonb as output_data,
        'the lease expired, crash ' || crash_count as error
    from rescued
)
