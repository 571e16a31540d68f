-- Takes what was picked: the tasks at `places` become `processing` under a fresh lease of `lease` seconds, held by `worker`,
-- but for those that others have locked. Answers all that the worker has to know of them, in order of service.
--
-- Why a function. As a plain statement it would be parsed and planned for every claim, which takes longer than the work
-- when one task is claimed (measured: 0.4 of 0.55 ms), and prepared statements do not pass through transaction poolers.
--
-- * A row is named by its `ctid`, so that no index is descended to change it. Every statement of a function sees what its
--   forerunner has locked: the rows are where they were found. Those that were not locked and have changed since are
--   elsewhere, and not taken. `status || ''` implies no partial index and is checked all the same: whatever plan is
--   chosen, a task that is no longer pending is not claimed.
-- * Of many large inputs only the first 8 MiB are taken: ask again for the others.
-- * The settings leave the planner no other way than to look up one row after the other, by its place; that also keeps the
--   answer in the order in which the rows were locked.
-- * The input is read before the row is changed: what a trigger of others makes of it then is not seen by this attempt.
-- * Times and numbers leave as float8 or text: a row that others filled with infinity or rubbish must fail alone, not with
--   the claim.
--
-- Versioned: processes of two releases run side by side during a rollout, so a changed function gets a new name.
create or replace function agent_tasks_take_v1(lease double precision, worker text, places tid[])
returns table (
    id uuid,
    lease_token uuid,
    attempt integer,
    task_type text,
    agent_type text,
    user_id uuid,
    context_id uuid,
    context_type text,
    priority text,
    retry_count integer,
    max_retries integer,
    retry_base_seconds integer,
    timeout_seconds integer,
    context_json text,
    context_bytes integer,
    created_at timestamptz,
    created_by text,
    trace_context text,
    waited_seconds double precision
)
language plpgsql
rows 100
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
#variable_conflict use_column
begin
    -- Together no more than a worker has memory for: the rest stays pending. Sizes as stored are known without reading.
    -- The question of the sizes is one of its own: in one expression the database would prepare it for every claim.
    if cardinality(places) > 8 then
        if (select sum(pg_column_size(task.context_json)) from agent_tasks task where task.ctid = any (places)) > 8388608 then
            places := array(
                select sized.place
                from (
                    select
                        task.ctid as place,
                        row_number() over service as position,
                        sum(pg_column_size(task.context_json)) over service as bytes
                    from agent_tasks task
                    where task.ctid = any (places)
                    window service as (
                        order by
                            case task.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end,
                            task.scheduled_for,
                            task.id
                    )
                ) sized
                where sized.bytes <= 8388608 or sized.position = 1
            );
        end if;
    end if;
    return query
    update agent_tasks task
    set status = 'processing',
        lease_token = gen_random_uuid(),
        lease_expires_at = clock_timestamp() + make_interval(secs => lease),
        claimed_by = worker,
        -- At the end of the numbers it stands still: what fences an attempt is its token.
        attempt = least(task.attempt, 2147483646) + 1,
        last_attempted_at = clock_timestamp(),
        -- A row that somebody set to pending again may still carry the request of its former life.
        cancel_requested_at = null,
        -- A task run ahead of its time and then released is due at once.
        scheduled_for = least(task.scheduled_for, clock_timestamp())
    from (
        select
            pending.ctid as place,
            -- An input of hundreds of megabytes must not be sent to us. Its stored size is known without reading it.
            case when pg_column_size(pending.context_json) <= 16777216 then pending.context_json::text end as input,
            kind.max_retries,
            kind.retry_base_seconds,
            kind.timeout_seconds
        from agent_tasks pending
        left join task_types kind on kind.task_type = pending.task_type
        where pending.ctid = any (places) and pending.status || '' = 'pending'
        order by
            case pending.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end,
            pending.scheduled_for,
            pending.id
        for no key update of pending skip locked
    ) picked
    where task.ctid = picked.place
    returning
        task.id,
        task.lease_token,
        task.attempt,
        task.task_type::text,
        task.agent_type::text,
        task.user_id::uuid,
        task.context_id::uuid,
        task.context_type::text,
        task.priority::text,
        coalesce(task.retry_count, 0)::integer as retry_count,
        coalesce(task.max_retries, picked.max_retries)::integer as max_retries,
        picked.retry_base_seconds,
        coalesce(task.timeout_seconds, picked.timeout_seconds) as timeout_seconds,
        case when octet_length(picked.input) <= 16777216 then picked.input end as context_json,
        coalesce(octet_length(picked.input), pg_column_size(task.context_json)) as context_bytes,
        task.created_at::timestamptz,
        task.created_by::text,
        task.trace_context,
        (extract(epoch from clock_timestamp()) - extract(epoch from task.scheduled_for))::float8 as waited_seconds;
end
$function$;

do $migration$
declare
    api_role text;
begin
    revoke all on function agent_tasks_take_v1(double precision, text, tid[]) from public;
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on function agent_tasks_take_v1(double precision, text, tid[]) from %I', api_role);
    end loop;
end
$migration$;
