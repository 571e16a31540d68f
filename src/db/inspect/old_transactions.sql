-- Transactions of this database that are older than $1 seconds, oldest first. Each keeps dead rows from being removed.
select description, age, ending
from (
    select
        format('process %s (%s, %s) is %s', pid, usename, application_name, state) as description,
        extract(epoch from clock_timestamp() - xact_start)::float8 as age,
        format('select pg_terminate_backend(%s)', pid) as ending
    from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
    union all
    select
        format('transaction %L of %s is prepared', gid, owner),
        extract(epoch from clock_timestamp() - prepared)::float8,
        format('rollback prepared %L', gid)
    from pg_prepared_xacts
    where database = current_database()
) transactions
where age > $1
order by age desc
limit 5
