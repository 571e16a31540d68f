-- Ends attempts: the one statement behind complete, retry, fail, snooze, release and cancel.
--
-- $1 ids, $2 lease tokens, $3 verbs, $4 delays in seconds, $5 results (JSON text), $6 errors, $7 latencies in
-- milliseconds, $8 sizes of inputs too large to be copied into the log, $9 usages (JSON text), $10 ids of the log rows.
-- Sorted by id.
--
-- * Only the holder of the current token may end an attempt, and only while it is still `processing`. An expired lease
--   that nobody has rescued is still good. The token stays on the row, so that a repeated ending is recognised.
-- * `any (array(…))` beside the join keeps the planner on the primary key. For the join alone it would rather read a table
--   of up to a hundred thousand rows from end to end.
-- * `held` waits for nobody: a row that somebody else has locked must not hold up its neighbours. Its ending is answered
--   `locked`. `no key`: an insert elsewhere that refers to a task by a foreign key is not in the way.
-- * The update goes by `ctid`, the place where `held` found the row: no index is descended again. A row that somebody
--   changed after the statement began is not found there; its ending is answered `locked`, too.
-- * `status || ''` cannot imply the partial index on processing rows. Without that the planner, which sees a queue
--   whose statistics know no processing row, joins all running tasks with the batch in a nested loop.
-- * A task whose cancellation was requested is not put back.
with ending as materialized (
    select *
    from unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::int4[], $8::int8[], $9::text[],
        $10::uuid[]
    ) with ordinality as e (id, token, verb, delay, result, error, latency_ms, oversize, usage, log_id, position)
),
held as materialized (
    select task.id, task.ctid as place
    from agent_tasks task
    join ending on ending.id = task.id
    where task.id = any (array(select ending.id from ending))
        and task.lease_token = ending.token
        and task.status || '' = 'processing'
    order by task.id
    for no key update of task skip locked
),
ended as (
    update agent_tasks task
    set status = case
            when ending.verb = 'complete' then 'completed'
            when ending.verb = 'fail' then 'failed'
            when ending.verb = 'cancel' or task.cancel_requested_at is not null then 'cancelled'
            else 'pending'
        end,
        scheduled_for = case
            when ending.delay is null then task.scheduled_for
            else clock_timestamp() + make_interval(secs => ending.delay)
        end,
        retry_count = case
            when ending.verb = 'retry' then least(greatest(coalesce(task.retry_count, 0), 0), 2147483646) + 1
            else coalesce(task.retry_count, 0)
        end,
        result_json = case
            when ending.verb in ('complete', 'cancel') then ending.result::jsonb
            when ending.verb = 'fail' then jsonb_build_object('error', ending.error)
            else task.result_json
        end,
        error_log = coalesce(ending.error, task.error_log),
        completed_at = case
            when ending.verb in ('complete', 'fail', 'cancel') or task.cancel_requested_at is not null
                then clock_timestamp()
            else task.completed_at
        end,
        crash_count = 0,
        lease_expires_at = null,
        cost_usd = coalesce((ending.usage::jsonb ->> 'costUsd')::numeric, task.cost_usd),
        quality_score = coalesce((ending.usage::jsonb ->> 'qualityScore')::float8, task.quality_score)
    from ending
    join held on held.id = ending.id
    where task.ctid = held.place and task.lease_token = ending.token and task.status || '' = 'processing'
    returning
        task.id, task.task_type, task.user_id, task.attempt, task.lease_token, task.context_json,
        ending.verb, ending.latency_ms, ending.result, ending.error, ending.oversize, ending.usage::jsonb as usage,
        ending.log_id, ending.position
),
entry as (
    select
        case when verb in ('complete', 'retry', 'fail') then 'process' else verb end as action,
        id, task_type, user_id, attempt, lease_token, latency_ms,
        case
            when oversize is null then context_json
            else jsonb_build_object('truncated', true, 'sizeBytes', oversize)
        end as input_data,
        result::jsonb as output_data,
        error,
        usage,
        log_id
    from ended
)
