-- Tasks that another program left `processing`, too long ago to be taken back ($1, the adoption window in seconds).
select
    count(*),
    extract(epoch from clock_timestamp() - min(coalesce(task.last_attempted_at, task.scheduled_for)))::float8
from agent_tasks task
where task.status = 'processing'
    and task.lease_expires_at is null
    and coalesce(task.last_attempted_at, task.scheduled_for) < statement_timestamp() - make_interval(secs => $1)
