-- The product's two tables as raw SQL would want them: the same columns, and no index that the claim of shape s1 and the
-- ending do not use. Fixed on purpose: what the product's own schema gains or loses is to be seen beside it.
create table agent_tasks (
    id uuid primary key default gen_random_uuid(),
    task_type varchar(100) not null,
    agent_type varchar(50) not null,
    user_id uuid,
    context_id uuid,
    context_type varchar(50),
    scheduled_for timestamptz not null default now(),
    priority varchar(20) default 'medium',
    status varchar(50) default 'pending',
    retry_count integer default 0,
    max_retries integer default 3,
    last_attempted_at timestamptz,
    context_json jsonb not null,
    result_json jsonb,
    error_log text,
    created_at timestamptz default now(),
    created_by varchar(100),
    completed_at timestamptz,
    lease_token uuid,
    lease_expires_at timestamptz,
    claimed_by text,
    attempt integer not null default 0,
    crash_count integer not null default 0,
    cancel_requested_at timestamptz,
    unique_key text,
    timeout_seconds integer,
    estimated_cost_usd numeric(12, 6),
    cost_usd numeric(12, 6),
    quality_score double precision,
    trace_context text
);

create table agent_actions_log (
    id uuid primary key default gen_random_uuid(),
    agent_type varchar(50) not null,
    agent_instance_id uuid,
    action_type varchar(100) not null,
    user_id uuid,
    context_id uuid,
    context_type varchar(50),
    model_used varchar(100),
    input_tokens integer,
    output_tokens integer,
    cost_usd numeric(10, 6),
    latency_ms integer,
    input_data jsonb,
    output_data jsonb,
    error text,
    created_at timestamptz default now(),
    attempt integer,
    lease_token uuid
);

create index agent_tasks_ranked on agent_tasks (
    (case priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end),
    scheduled_for,
    id
) where status = 'pending';
create index agent_tasks_processing on agent_tasks (id) where status = 'processing';
create index agent_actions_log_context on agent_actions_log (context_id, created_at);
