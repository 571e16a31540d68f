-- One row of agent_actions_log for each `entry` of the statement it is part of.
, logged as (
    insert into agent_actions_log (
        id, agent_type, action_type, user_id, context_id, context_type, model_used, input_tokens, output_tokens, cost_usd,
        latency_ms, input_data, output_data, error, attempt, lease_token
    )
    select
        coalesce(log_id, gen_random_uuid()),
        'task_processor',
        left(action || '_' || task_type, 100),
        user_id,
        id,
        'agent_task',
        left(usage ->> 'model', 100),
        (usage ->> 'inputTokens')::int4,
        (usage ->> 'outputTokens')::int4,
        (usage ->> 'costUsd')::numeric,
        latency_ms,
        input_data,
        output_data,
        error,
        attempt,
        lease_token
    from entry
)
