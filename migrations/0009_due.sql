-- Picks and locks what the next claim takes: at most `lim` due tasks of `types`, urgent first, then oldest first.
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
-- * `skip locked` may meet rows that another process is claiming right now, so a lane offers `slack` more than asked,
--   and ten and a hundred times that if all it offered were locked and more is there.
-- * `status || ''` cannot imply a partial index: the join back goes through the primary key, whatever the statistics.
-- * A short answer is not an empty queue (others may hold the heads of the lanes): ask next_due before sleeping.
--
-- Versioned: processes of two releases run side by side during a rollout, so a changed function gets a new name.
create or replace function agent_tasks_due_v1(types text[], lim integer) returns setof uuid
language plpgsql
rows 100
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set jit = off
as $function$
declare
    slack integer := 100;
    lanes text[];
    fresh uuid[];
    taken uuid[] := '{}';
begin
    select array_agg(distinct wanted.task_type) into lanes
    from unnest(types) as wanted (task_type)
    where not exists (
        select from task_types where task_types.task_type = wanted.task_type and task_types.paused
    );

    loop
        select array_agg(locked.id) into fresh
        from (
            select task.id
            from (values (0), (1), (2), (3)) as ranks (rank)
            cross join lateral (
                select head.id, head.scheduled_for
                from unnest(lanes) as lane (task_type)
                cross join lateral (
                    select pending.id, pending.scheduled_for
                    from agent_tasks pending
                    where pending.status = 'pending'
                        and pending.crash_count < 2
                        and pending.task_type = lane.task_type
                        and (case pending.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end)
                            = ranks.rank
                        and pending.scheduled_for <= statement_timestamp()
                    order by pending.scheduled_for, pending.id
                    limit lim + slack
                ) head
                order by head.scheduled_for, head.id
                limit lim + slack
            ) candidate
            join agent_tasks task on task.id = candidate.id
            where task.status || '' = 'pending'
                and task.scheduled_for <= statement_timestamp()
                and task.id <> all (taken)
            limit lim - cardinality(taken)
            for no key update of task skip locked
        ) locked;
        return query select unnest(fresh);
        taken := taken || coalesce(fresh, '{}');
        exit when cardinality(taken) >= lim or slack >= 10000;
        -- Short, and no list was cut: there is nothing behind those that others hold.
        exit when not exists (
            select from (values (0), (1), (2), (3)) as ranks (rank)
            cross join lateral (
                select
                from unnest(lanes) as lane (task_type)
                cross join lateral (
                    select
                    from agent_tasks pending
                    where pending.status = 'pending'
                        and pending.crash_count < 2
                        and pending.task_type = lane.task_type
                        and (case pending.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end)
                            = ranks.rank
                        and pending.scheduled_for <= statement_timestamp()
                    order by pending.scheduled_for, pending.id
                    limit lim + slack
                ) head
                offset lim + slack - 1
                limit 1
            ) beyond
        );
        slack := slack * 10;
    end loop;
end
$function$;

do $migration$
declare
    api_role text;
begin
    revoke all on function agent_tasks_due_v1(text[], integer) from public;
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on function agent_tasks_due_v1(text[], integer) from %I', api_role);
    end loop;
end
$migration$;
