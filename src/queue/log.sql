-- One row of agent_actions_log for each `entry` of the statement it is part of. Endings have a statement of their own
-- (migrations/0011_end.sql): only they know a lease, a duration and what an attempt has cost.
, logged as (
    insert into agent_actions_log (
        id, agent_type, action_type, user_id, context_id, context_type, input_data, output_data, error, attempt
    )
    select
        gen_random_uuid(),
        'task_processor',
        left(action || '_' || task_type, 100),
        user_id,
        id,
        'agent_task',
        input_data,
        output_data,
        error,
        attempt
    from entry
)
