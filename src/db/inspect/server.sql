-- Facts of the server and of this role's sessions. Times are in milliseconds; a setting that this server does not know
-- is null. Names are quoted where SQL needs it.
select
    current_setting('server_version_num')::int8,
    quote_ident(current_user),
    quote_ident(current_database()),
    pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool,
    (extract(epoch from clock_timestamp()) * 1000)::float8,
    (select setting::int8 from pg_settings where name = 'statement_timeout'),
    (select setting::int8 from pg_settings where name = 'lock_timeout'),
    (select setting::int8 from pg_settings where name = 'idle_in_transaction_session_timeout'),
    (select setting::int8 from pg_settings where name = 'idle_session_timeout'),
    (
        select max(setting::int8) filter (where name = 'max_connections')
            - sum(setting::int8) filter (where name <> 'max_connections')
        from pg_settings
        where name in ('max_connections', 'superuser_reserved_connections', 'reserved_connections')
    )::int8,
    (select count(*) from pg_stat_activity where datname is not null),
    nullif((select rolconnlimit from pg_roles where rolname = current_user), -1)::int8,
    nullif((select datconnlimit from pg_database where datname = current_database()), -1)::int8,
    pg_has_role('pg_read_all_stats', 'usage')
