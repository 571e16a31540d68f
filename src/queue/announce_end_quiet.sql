-- Announces for those that kept quiet. No row if it is still quiet, or if somebody is open that may be one of them.
-- $1 the channel.
--
-- `case` keeps the two questions in this order: an insert that begins in between is no longer quiet.
select pg_notify($1, '')::text
where case
    when exists (select from agent_tasks_wake where quiet_until > clock_timestamp()) then false
    else not exists (
        select from pg_locks
        where locktype = 'relation'
            and relation = 'agent_tasks'::regclass
            and database = (select oid from pg_database where datname = current_database())
            and mode = 'RowExclusiveLock'
    )
end
