-- What operators set per task_type, read with every claim. A null setting means the process's own default.
create table if not exists task_types (
    task_type varchar(100) primary key,
    paused boolean not null default false,
    timeout_seconds integer check (timeout_seconds > 0),
    max_retries integer check (max_retries >= 0),
    retry_base_seconds integer check (retry_base_seconds > 0),
    updated_at timestamptz not null default now()
);

-- One row. Until `quiet_until` an insert need not announce itself: a busy worker has promised to look again.
create table if not exists agent_tasks_wake (
    only_row boolean primary key default true check (only_row),
    quiet_until timestamptz not null default '-infinity'
);
insert into agent_tasks_wake default values on conflict do nothing;

alter table task_types enable row level security;
alter table agent_tasks_wake enable row level security;
do $migration$
declare
    api_role text;
begin
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on table task_types, agent_tasks_wake from %I', api_role);
    end loop;
end
$migration$;
