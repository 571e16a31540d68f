-- The tables of seed 004 and of the built-in handlers, in the customer's shape, each only if it is absent.
-- What exists is left as it is. What we create is closed to Supabase's API roles: `public` is on the internet there.
do $migration$
declare
    wanted record;
    api_role text;
begin
    for wanted in
        select * from (values
            ('users', $ddl$
                create table users (
                    id uuid primary key default gen_random_uuid(),
                    phone_number varchar(20) not null unique,
                    email varchar(255),
                    first_name varchar(100),
                    last_name varchar(100),
                    company varchar(255),
                    title varchar(255),
                    linkedin_url varchar(500),
                    verified boolean default false,
                    innovator boolean default false,
                    expert_connector boolean default false,
                    expertise text[],
                    poc_agent_id varchar(100),
                    poc_agent_type varchar(50),
                    quiet_hours_start time,
                    quiet_hours_end time,
                    timezone varchar(50),
                    response_pattern jsonb,
                    credit_balance integer default 0,
                    status_level varchar(50) default 'member',
                    referred_by uuid references users (id),
                    name_dropped varchar(255),
                    email_verified boolean default false,
                    created_at timestamptz default now(),
                    updated_at timestamptz default now(),
                    last_active_at timestamptz
                ) $ddl$),
            ('conversations', $ddl$
                create table conversations (
                    id uuid primary key default gen_random_uuid(),
                    user_id uuid references users (id),
                    phone_number varchar(20),
                    status varchar(50) default 'active',
                    conversation_summary text,
                    last_summary_message_id uuid,
                    messages_since_summary integer default 0,
                    last_message_at timestamptz,
                    created_at timestamptz default now(),
                    updated_at timestamptz default now()
                ) $ddl$),
            ('messages', $ddl$
                create table messages (
                    id uuid primary key default gen_random_uuid(),
                    conversation_id uuid references conversations (id),
                    user_id uuid references users (id),
                    role varchar(50) not null,
                    content text not null,
                    direction varchar(20) not null,
                    twilio_message_sid varchar(100),
                    status varchar(50),
                    created_at timestamptz default now(),
                    sent_at timestamptz,
                    delivered_at timestamptz
                ) $ddl$),
            ('events', $ddl$
                create table events (
                    id uuid primary key default gen_random_uuid(),
                    event_type varchar(100) not null,
                    aggregate_id uuid,
                    aggregate_type varchar(50),
                    payload jsonb not null,
                    metadata jsonb,
                    processed boolean default false,
                    version integer default 1,
                    created_at timestamptz default now(),
                    created_by varchar(100)
                ) $ddl$),
            ('user_priorities', $ddl$
                create table user_priorities (
                    id uuid primary key default gen_random_uuid(),
                    user_id uuid references users (id),
                    priority_rank integer not null,
                    item_type varchar(50) not null,
                    item_id uuid not null,
                    value_score numeric(5, 2),
                    status varchar(50) default 'active',
                    created_at timestamptz default now(),
                    expires_at timestamptz,
                    presented_at timestamptz,
                    presentation_count integer default 0,
                    unique (user_id, item_type, item_id)
                ) $ddl$),
            ('intro_opportunities', $ddl$
                create table intro_opportunities (
                    id uuid primary key default gen_random_uuid(),
                    connector_user_id uuid references users (id),
                    innovator_id uuid references users (id),
                    prospect_id uuid,
                    prospect_name varchar(255),
                    prospect_company varchar(255),
                    prospect_title varchar(255),
                    prospect_linkedin_url varchar(500),
                    innovator_name varchar(255),
                    bounty_credits integer default 50,
                    status varchar(50) default 'open',
                    connector_response text,
                    feed_item_id uuid,
                    intro_email varchar(255),
                    intro_scheduled_at timestamptz,
                    intro_completed_at timestamptz,
                    created_at timestamptz default now(),
                    updated_at timestamptz default now(),
                    expires_at timestamptz
                ) $ddl$),
            ('solution_workflows', $ddl$
                create table solution_workflows (
                    id uuid primary key default gen_random_uuid(),
                    user_id uuid not null references users (id),
                    request_description text not null,
                    category varchar(100),
                    current_step varchar(100) not null,
                    status varchar(50) default 'in_progress',
                    perplexity_results jsonb,
                    matched_innovators jsonb,
                    community_insights jsonb,
                    expert_recommendations jsonb,
                    quality_threshold_met boolean default false,
                    last_decision_at timestamptz,
                    next_action varchar(100),
                    pending_tasks jsonb default '[]',
                    completed_tasks jsonb default '[]',
                    conversation_log jsonb default '[]',
                    created_at timestamptz default now(),
                    updated_at timestamptz default now(),
                    completed_at timestamptz
                ) $ddl$),
            ('community_requests', $ddl$
                create table community_requests (
                    id uuid primary key default gen_random_uuid(),
                    requesting_agent_type varchar(50) not null,
                    requesting_user_id uuid references users (id),
                    context_id uuid,
                    context_type varchar(50),
                    question text not null,
                    category varchar(100),
                    expertise_needed text[],
                    target_user_ids uuid[],
                    status varchar(50) default 'open',
                    responses_count integer default 0,
                    closed_loop_at timestamptz,
                    closed_loop_message text,
                    created_at timestamptz default now(),
                    expires_at timestamptz default now() + interval '7 days',
                    requester_context text,
                    desired_outcome varchar,
                    urgency varchar default 'medium',
                    request_summary varchar(100)
                ) $ddl$),
            ('community_responses', $ddl$
                create table community_responses (
                    id uuid primary key default gen_random_uuid(),
                    request_id uuid not null references community_requests (id),
                    user_id uuid not null references users (id),
                    response_text text not null,
                    verbatim_answer text not null,
                    usefulness_score integer,
                    impact_description text,
                    credits_awarded integer,
                    credited_at timestamptz,
                    status varchar(50) default 'provided',
                    closed_loop_message text,
                    closed_loop_at timestamptz,
                    created_at timestamptz default now()
                ) $ddl$),
            ('credit_events', $ddl$
                create table credit_events (
                    id uuid primary key default gen_random_uuid(),
                    user_id uuid not null references users (id),
                    event_type varchar(100) not null,
                    amount integer not null,
                    reference_type varchar(50) not null,
                    reference_id uuid not null,
                    idempotency_key varchar(255) not null unique,
                    description text,
                    created_at timestamptz default now(),
                    processed boolean default false
                ) $ddl$),
            ('message_queue', $ddl$
                create table message_queue (
                    id uuid primary key default gen_random_uuid(),
                    user_id uuid not null references users (id),
                    agent_id varchar(100) not null,
                    message_data jsonb not null,
                    final_message text,
                    scheduled_for timestamptz not null,
                    priority varchar(20) default 'medium',
                    status varchar(50) default 'queued',
                    superseded_by_message_id uuid references message_queue (id),
                    superseded_reason varchar(100),
                    conversation_context_id uuid references conversations (id),
                    requires_fresh_context boolean default false,
                    sent_at timestamptz,
                    delivered_message_id uuid references messages (id),
                    created_at timestamptz default now(),
                    sequence_id uuid,
                    sequence_position integer,
                    sequence_total integer
                ) $ddl$),
            ('agent_tasks', $ddl$
                create table agent_tasks (
                    -- UUIDv7: in order of time, so that indexes on it grow at one end (measured: 10 % less work).
                    id uuid primary key default encode(set_bit(set_bit(overlay(
                        uuid_send(gen_random_uuid())
                        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                        from 1 for 6
                    ), 52, 1), 53, 1), 'hex')::uuid,
                    task_type varchar(100) not null,
                    agent_type varchar(50) not null,
                    user_id uuid references users (id),
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
                    completed_at timestamptz
                )
                -- Each task leaves two dead rows behind. Vacuum must not wait until they are a fifth of a large table.
                with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_limit = 2000) $ddl$),
            ('agent_actions_log', $ddl$
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
                    created_at timestamptz default now()
                ) $ddl$)
        ) as tables (name, ddl)
    loop
        continue when to_regclass(wanted.name) is not null;
        execute wanted.ddl;
        execute format('alter table %I enable row level security', wanted.name);
        for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on table %I from %I', wanted.name, api_role);
        end loop;
    end loop;
end
$migration$;
