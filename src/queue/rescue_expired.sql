-- Takes back tasks whose lease expired: their process died, or lost the database and with it the right to go on.
--
-- $1 the default timeout and $2 the adoption window in seconds, $3 how many at the most, $4 how many seconds ago a lease
-- must have expired, and for how long the server must have been up, $5 the ids to leave out, $6 the only ids to look at.
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
        and task.id <> all ($5::uuid[])
        and ($6::uuid[] is null or task.id = any ($6::uuid[]))
        and pg_postmaster_start_time() < statement_timestamp() - make_interval(secs => $4)
    order by task.id
    limit $3
    for no key update skip locked
)
