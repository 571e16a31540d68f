-- Picks and locks what the next claim takes: at most `lim` due tasks of `types`, urgent first, then oldest first. Answers
-- the places of the rows. `types` names no type twice. With `reach`, only what became due in the last `reach` seconds is
-- looked at (src/worker/horizon.rs).
--
-- Shape. The index agent_tasks_due holds one lane per (task_type, rank). For each rank, from urgent to low, the heads
-- of the lanes are read and merged by scheduled_for; once `lim` rows are locked, lower ranks are never looked at. A
-- lane ends at the present, and types that this process cannot run have lanes it does not open: tasks of the future,
-- finished and unroutable ones, however many, are never read.
--
-- Why a function. Left alone, the planner has no statistics for such a lane, takes a bitmap scan and sorts the whole
-- backlog of it for every claim (measured: linear in the backlog). Only the settings below keep the ordered scan, and
-- only a function can carry settings through a transaction pooler. They also make the plan independent of statistics.
--
-- Details that matter:
-- * Candidates are read without locks and locked afterwards, in order, under the limit: a row locked is a row claimed.
-- * `no key`: an insert elsewhere that refers to a task by a foreign key neither waits for a claim nor hides the task.
-- * Large claims queue up for a moment, each until the one before it has committed: side by side they would read, lock and
--   skip what the others are taking (measured: four processes at once cost Postgres twice the CPU per task). It is a
--   courtesy and not a lock: nobody waits longer than `lock_timeout` says, and small claims do not wait at all.
-- * `skip locked` may meet rows that another process is claiming right now, so `slack` more than asked are offered, and
--   many times that if too many of them were locked and more is there.
-- * The join back goes by `ctid`, the place of the row version that this very statement sees: no index is descended
--   again. `status || ''` cannot imply a partial index, which the planner might otherwise drive the join from.
-- * A short answer is not an empty queue (others may hold the heads of the lanes): ask next_due before sleeping.
--
-- Versioned: processes of two releases run side by side during a rollout, so a changed function gets a new name.
create or replace function agent_tasks_due_v1(types text[], lim integer, reach double precision) returns tid[]
language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set enable_incremental_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
declare
    patience constant text := current_setting('lock_timeout');
    since constant timestamptz := case
        when reach is null then '-infinity' else statement_timestamp() - make_interval(secs => reach)
    end;
    slack integer := 10 + lim / 8;
    offered bigint;
    places tid[];
    taken tid[] := '{}';
begin
    if lim >= 50 then
        begin
            perform set_config('lock_timeout', '250ms', true);
            perform pg_advisory_xact_lock(hashtextextended('agent_tasks_due', 'agent_tasks'::regclass::oid::bigint));
            perform set_config('lock_timeout', patience, true);
        exception when lock_not_available then
            null;
        end;
    end if;

    loop
        with candidate as materialized (
            select head.place
            from (values (0), (1), (2), (3)) as ranks (rank)
            cross join lateral (
                select pending.ctid as place, pending.scheduled_for, pending.id
                from unnest(types) as lane (task_type)
                cross join lateral (
                    select task.ctid, task.scheduled_for, task.id
                    from agent_tasks task
                    where task.status = 'pending'
                        and task.crash_count < 2
                        and task.task_type = lane.task_type
                        and (case task.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end)
                            = ranks.rank
                        and task.scheduled_for between since and statement_timestamp()
                    order by task.scheduled_for, task.id
                    limit lim + slack
                ) pending
                where not exists (select from task_types kind where kind.task_type = lane.task_type and kind.paused)
                order by pending.scheduled_for, pending.id
                limit lim + slack
            ) head
            limit lim + slack
        ),
        locked as materialized (
            select task.ctid as place
            from candidate
            join agent_tasks task on task.ctid = candidate.place
            where task.status || '' = 'pending'
                and task.scheduled_for <= statement_timestamp()
                and candidate.place <> all (taken)
            limit lim - cardinality(taken)
            for no key update of task skip locked
        )
        select array_agg(locked.place), (select count(*) from candidate) into places, offered from locked;
        taken := taken || places;
        -- Short, and the list was not cut: there is nothing behind what others hold.
        exit when cardinality(taken) >= lim or offered < lim + slack or slack >= 10000;
        slack := least(slack * 32, 10000);
    end loop;
    return taken;
end
$function$;

-- The same for a queue that was empty a moment ago, quicker, since to start the plan above takes longer than to read a few
-- tasks (measured: a seventh of such a claim's time, with sixteen types a quarter). It takes all that is due, so it need
-- not sort; if that is more than `lim` or 200, it leaves the choice to the plan above.
--
-- What it finds is not locked: who takes it does that. Until then no other row can be at its place, since the statement
-- that calls this function has a snapshot, from which nothing that was there is cleaned away.
create or replace function agent_tasks_few_v1(types text[], lim integer, reach double precision) returns tid[]
language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
declare
    most constant integer := least(lim, 200);
    since constant timestamptz := case
        when reach is null then '-infinity' else statement_timestamp() - make_interval(secs => reach)
    end;
    places constant tid[] := array(
        select pending.place
        from (values (0), (1), (2), (3)) as ranks (rank)
        cross join lateral (
            select task.ctid as place
            from agent_tasks task
            where task.status = 'pending'
                and task.crash_count < 2
                and task.task_type = any (array(
                    select lane.task_type
                    from unnest(types) as lane (task_type)
                    where not exists (select from task_types kind where kind.task_type = lane.task_type and kind.paused)
                ))
                and (case task.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end) = ranks.rank
                and task.scheduled_for between since and statement_timestamp()
            limit most + 1
        ) pending
        limit most + 1
    );
begin
    return case when cardinality(places) > most then agent_tasks_due_v1(types, lim, reach) else places end;
end
$function$;

-- Seconds until the next task that this process can run is due: not positive if one is due now, null if there is none;
-- `suspect` for those that must run alone. One index entry per lane is read. With `reach`, ordinary tasks that became due
-- longer ago are passed over; `left_out` are ids.
create or replace function agent_tasks_next_v1(types text[], left_out uuid[], reach double precision)
returns table (ordinary double precision, suspect double precision)
language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
declare
    since constant timestamptz := case
        when reach is null then '-infinity' else statement_timestamp() - make_interval(secs => reach)
    end;
    running constant text[] := array(
        select lane.task_type
        from unnest(types) as lane (task_type)
        where not exists (select from task_types kind where kind.task_type = lane.task_type and kind.paused)
    );
begin
    return query select
        (
            select min(extract(epoch from head.scheduled_for))
            from (values (0), (1), (2), (3)) as ranks (rank)
            cross join unnest(running) as lane (task_type)
            cross join lateral (
                select pending.scheduled_for
                from agent_tasks pending
                where pending.status = 'pending'
                    and pending.crash_count < 2
                    and pending.task_type = lane.task_type
                    and (case pending.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end)
                        = ranks.rank
                    and pending.scheduled_for >= since
                    and pending.id <> all (left_out)
                order by pending.scheduled_for, pending.id
                limit 1
            ) head
        )::float8 - extract(epoch from clock_timestamp())::float8,
        (
            select extract(epoch from alone.scheduled_for)
            from agent_tasks alone
            where alone.status = 'pending'
                and alone.crash_count >= 2
                and alone.task_type = any (running)
                and alone.id <> all (left_out)
            order by alone.scheduled_for, alone.id
            limit 1
        )::float8 - extract(epoch from clock_timestamp())::float8;
end
$function$;

do $migration$
declare
    api_role text;
    signature text;
begin
    foreach signature in array array[
        'agent_tasks_due_v1(text[], integer, double precision)',
        'agent_tasks_few_v1(text[], integer, double precision)',
        'agent_tasks_next_v1(text[], uuid[], double precision)'
    ] loop
        execute format('revoke all on function %s from public', signature);
        for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', signature, api_role);
        end loop;
    end loop;
end
$migration$;
