-- What was taken back, and when the next lease would expire.
select
    (select count(*) from rescued) as rescued,
    (select count(*) from rescued where rescued.status = 'failed') as poisoned,
    exists (select from rescued where rescued.status = 'pending') as due,
    (
        select (extract(epoch from min(task.lease_expires_at)) - extract(epoch from clock_timestamp()))::float8
        from agent_tasks task
        where task.status = 'processing' and task.lease_expires_at >= statement_timestamp()
    ) as next_expiry_seconds
