-- Ends attempts: what is behind complete, retry, fail, snooze, release and cancel. Arrays, one element an ending, sorted by
-- id; results and usages are JSON text, `delays` seconds, `latencies` milliseconds, `oversizes` the sizes of inputs too
-- large to be copied into the log. `agent_tasks_end_unlogged_v1` does the same without the log.
--
-- Answers null if all were accepted, or else what became of each, in the order given. `already` is for a reply that was
-- lost: this very token ended the attempt in this very way. `locked`: the row still waits for this ending, and somebody else
-- holds it at this moment or has just let go of it, having changed it: the next try will tell. `refused`: a trigger
-- swallowed the update. Anything else that was not accepted is stale. Nothing was written for any of these.
--
-- Why a function. As a plain statement it would be parsed and planned for every batch, which takes longer than the work
-- when one task is ended (measured: 0.6 ms), and prepared statements do not pass through transaction poolers.
--
-- * Only the holder of the current token may end an attempt, and only while it is still `processing`. An expired lease
--   that nobody has rescued is still good. The token stays on the row, so that a repeated ending is recognised.
-- * `held` waits for nobody: a row that somebody else has locked must not hold up its neighbours. `no key`: an insert
--   elsewhere that refers to a task by a foreign key is not in the way.
-- * The update goes by `ctid`, the place where `held` found the row: no index is descended again. A row that somebody
--   changed after the statement began is not found there.
-- * The settings leave one plan, whatever the statistics say: one descent of the primary key an ending, and the rest by
--   place. `status || ''` cannot imply the partial index on processing rows, which the planner might drive the join from.
-- * A task whose cancellation was requested is not put back.
-- * The verdicts are worked out only where not all were accepted.
--
-- Versioned: processes of two releases run side by side during a rollout, so a changed function gets a new name.
do $migration$
declare
    wanted record;
    api_role text;
begin
    for wanted in
        select * from (values
            ('agent_tasks_end_unlogged_v1', ''),
            ('agent_tasks_end_v1', $log$,
            logged as (
                insert into agent_actions_log (
                    id, agent_type, action_type, user_id, context_id, context_type, model_used, input_tokens, output_tokens,
                    cost_usd, latency_ms, input_data, output_data, error, attempt, lease_token
                )
                select
                    log_id,
                    'task_processor',
                    left(case when verb in ('complete', 'retry', 'fail') then 'process' else verb end || '_' || task_type, 100),
                    user_id,
                    id,
                    'agent_task',
                    left(usage ->> 'model', 100),
                    (usage ->> 'inputTokens')::int4,
                    (usage ->> 'outputTokens')::int4,
                    (usage ->> 'costUsd')::numeric,
                    latency_ms,
                    case
                        when oversize is null then context_json
                        else jsonb_build_object('truncated', true, 'sizeBytes', oversize)
                    end,
                    result,
                    error,
                    attempt,
                    lease_token
                from ended
            )$log$)
        ) as functions (name, log)
    loop
        execute format('create or replace function %I', wanted.name) || replace($ddl$(
            ids uuid[], tokens uuid[], verbs text[], delays float8[], results text[], errors text[], latencies int4[],
            oversizes int8[], usages text[], log_ids uuid[]
        ) returns text[]
        language plpgsql
        set enable_seqscan = off
        set enable_bitmapscan = off
        set enable_hashjoin = off
        set enable_mergejoin = off
        set jit = off
        set plan_cache_mode = force_generic_plan
        as $function$
        #variable_conflict use_column
        declare
            verdicts text[];
        begin
            with ending as not materialized (
                select *
                from unnest(ids, tokens, verbs, delays, results, errors, latencies, oversizes, usages, log_ids)
                    with ordinality as e (
                        id, token, verb, delay, result, error, latency_ms, oversize, usage, log_id, position
                    )
            ),
            held as materialized (
                select task.ctid as place, ending.*
                from ending
                join agent_tasks task on task.id = ending.id
                where task.lease_token = ending.token and task.status || '' = 'processing'
                for no key update of task skip locked
            ),
            ended as (
                update agent_tasks task
                set status = case
                        when held.verb = 'complete' then 'completed'
                        when held.verb = 'fail' then 'failed'
                        when held.verb = 'cancel' or task.cancel_requested_at is not null then 'cancelled'
                        else 'pending'
                    end,
                    scheduled_for = case
                        when held.delay is null then task.scheduled_for
                        else clock_timestamp() + make_interval(secs => held.delay)
                    end,
                    retry_count = case
                        when held.verb = 'retry'
                            then least(greatest(coalesce(task.retry_count, 0), 0), 2147483646) + 1
                        else coalesce(task.retry_count, 0)
                    end,
                    result_json = case
                        when held.verb in ('complete', 'cancel') then held.result::jsonb
                        when held.verb = 'fail' then jsonb_build_object('error', held.error)
                        else task.result_json
                    end,
                    error_log = coalesce(held.error, task.error_log),
                    completed_at = case
                        when held.verb in ('complete', 'fail', 'cancel') or task.cancel_requested_at is not null
                            then clock_timestamp()
                        else task.completed_at
                    end,
                    crash_count = 0,
                    lease_expires_at = null,
                    cost_usd = coalesce((held.usage::jsonb ->> 'costUsd')::numeric, task.cost_usd),
                    quality_score = coalesce((held.usage::jsonb ->> 'qualityScore')::float8, task.quality_score)
                from held
                where task.ctid = held.place and task.lease_token = held.token and task.status || '' = 'processing'
                returning
                    task.id, task.task_type, task.user_id, task.attempt, task.lease_token, task.context_json, held.verb,
                    held.latency_ms, held.result::jsonb as result, held.error, held.oversize,
                    held.usage::jsonb as usage, held.log_id, held.position
            )/* log */
            select case when (select count(*) from ended) < cardinality(ids) then array(
                select case
                    when ending.position in (select ended.position from ended) then 'accepted'
                    when exists (
                        select from agent_tasks task
                        where task.id = ending.id
                            and task.lease_token = ending.token
                            and (
                                task.status || '' = case ending.verb
                                    when 'complete' then 'completed'
                                    when 'fail' then 'failed'
                                    when 'cancel' then 'cancelled'
                                    else 'pending'
                                end
                                or (task.status || '' = 'cancelled' and task.cancel_requested_at is not null)
                            )
                    ) then 'already'
                    when exists (
                        select from held join agent_tasks task on task.ctid = held.place
                        where held.position = ending.position
                    ) then 'refused'
                    when exists (
                        select from agent_tasks task
                        where task.id = ending.id
                            and task.lease_token = ending.token
                            and task.status || '' = 'processing'
                    ) then 'locked'
                    else 'stale'
                end
                from ending
                order by ending.position
            ) end into verdicts;
            return verdicts;
        end
        $function$ $ddl$, '/* log */', wanted.log);

        execute format('revoke all on function %I from public', wanted.name);
        for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %I from %I', wanted.name, api_role);
        end loop;
    end loop;
end
$migration$;
