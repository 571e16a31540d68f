-- What the queue adds to the customer's two tables. Every column is nullable or has a constant default: adopting a
-- table of millions of rows is instant, and an older writer that names none of them keeps working.
alter table agent_tasks
    add column if not exists lease_token uuid,
    add column if not exists lease_expires_at timestamptz,
    add column if not exists claimed_by text,
    add column if not exists attempt integer not null default 0,
    add column if not exists crash_count integer not null default 0,
    add column if not exists cancel_requested_at timestamptz,
    add column if not exists unique_key text,
    add column if not exists timeout_seconds integer,
    add column if not exists estimated_cost_usd numeric(12, 6),
    add column if not exists cost_usd numeric(12, 6),
    add column if not exists quality_score double precision,
    add column if not exists trace_context text;

alter table agent_actions_log
    add column if not exists attempt integer,
    add column if not exists lease_token uuid;

-- A task without a status is never claimed, so a table that gives none by default gets one for the rows to come.
do $migration$
begin
    if exists (
        select from pg_attribute
        where attrelid = 'agent_tasks'::regclass and attname = 'status' and not atthasdef
    ) then
        alter table agent_tasks alter column status set default 'pending';
    end if;
end
$migration$;

comment on column agent_tasks.lease_token is
    'the right to end the current attempt; fresh for every claim, kept on the row after the ending';
comment on column agent_tasks.attempt is 'runs so far, numbered from 1; raised by every claim, never lowered';
comment on column agent_tasks.crash_count is 'leases in a row that expired without an ending; the third is poison';
comment on column agent_tasks.unique_key is 'at most one task ever carries a given key; null means no such promise';
