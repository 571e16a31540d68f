-- Schemas with a table `agent_tasks` that this role's search path does not lead to, though no other one is found; and
-- the API roles of Supabase that may read the one that is found, without row level security to restrict them.
select
    (
        select string_agg(quote_ident(nspname), ', ' order by nspname)
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where relname = 'agent_tasks' and relkind in ('r', 'p') and not exists (
            select from pg_class found where found.relname = 'agent_tasks' and pg_table_is_visible(found.oid)
        )
    ),
    (
        select string_agg(rolname, ', ' order by rolname)
        from pg_class
        cross join pg_roles
        where relname = 'agent_tasks' and relkind in ('r', 'p') and pg_table_is_visible(pg_class.oid)
            and not relrowsecurity
            and rolname in ('anon', 'authenticated')
            and has_table_privilege(pg_roles.oid, pg_class.oid, 'select, insert, update, delete')
    )
