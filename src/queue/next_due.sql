-- Seconds until the next task that this process can run is due: not positive if one is due now, null if there is none.
-- One index entry per lane of agent_tasks_due is read (see migrations/0009_due.sql for the lanes).
--
-- $1 the task types, $2 the ids to leave out, $3 null, or how many seconds ago ordinary tasks must have become due at the
-- most.
with lanes as (
    select wanted.task_type
    from unnest($1::text[]) as wanted (task_type)
    where not exists (
        select from task_types where task_types.task_type = wanted.task_type and task_types.paused
    )
)
select
    (
        select min(extract(epoch from head.scheduled_for))
        from (values (0), (1), (2), (3)) as ranks (rank)
        cross join lanes
        cross join lateral (
            select pending.scheduled_for
            from agent_tasks pending
            where pending.status = 'pending'
                and pending.crash_count < 2
                and pending.task_type = lanes.task_type
                and (case pending.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end)
                    = ranks.rank
                and pending.scheduled_for
                    >= coalesce(statement_timestamp() - make_interval(secs => $3::float8), '-infinity')
                and pending.id <> all ($2::uuid[])
            order by pending.scheduled_for, pending.id
            limit 1
        ) head
    )::float8 - extract(epoch from clock_timestamp())::float8 as ordinary,
    (
        select extract(epoch from suspect.scheduled_for)
        from agent_tasks suspect
        where suspect.status = 'pending'
            and suspect.crash_count >= 2
            and suspect.task_type in (select lanes.task_type from lanes)
            and suspect.id <> all ($2::uuid[])
        order by suspect.scheduled_for, suspect.id
        limit 1
    )::float8 - extract(epoch from clock_timestamp())::float8 as suspect
