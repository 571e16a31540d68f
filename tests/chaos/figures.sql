-- The figures of a run. Needs the table `ends` that invariants.sql makes.
with rescues as (
    -- From the kill of a process to the next start of what its handlers were at.
    select extract(epoch from again.at - kill.at)::float8 as waited
    from chaos.kills kill
    join chaos.effects started on started.process = kill.process and started.phase = 'start'
    join ends on ends.task_id = started.task_id and ends.attempt = started.attempt and ends.kind = 'recover'
    join chaos.effects again
        on again.task_id = started.task_id and again.attempt = started.attempt + 1 and again.phase = 'start'
)
select
    (select count(*) from agent_tasks) as tasks,
    (select count(*) from chaos.acknowledged) as acknowledged,
    (select count(*) from agent_tasks where status = 'completed') as completed,
    (select count(*) from chaos.told where ending = 'complete') as reported,
    (select count(*) from ends) as attempts,
    (select count(*) from chaos.effects where phase = 'start') as starts,
    (select count(*) from chaos.effects where phase = 'finish') as effects,
    (
        select coalesce(sum(finished - 1), 0)
        from (select count(*) as finished from chaos.effects where phase = 'finish' group by task_id) repeated
    )::int8 as duplicates,
    (select count(*) from ends where kind = 'release') as released,
    (select count(*) from ends where kind = 'recover') as rescued,
    (select count(*) from agent_tasks where error_log like 'poison%') as poisoned,
    (select count(*) from agent_tasks where context_json ? 'abort') as aborting,
    (select percentile_cont(0.5) within group (order by waited) from rescues) as rescue_p50,
    (select max(waited) from rescues) as rescue_max;
