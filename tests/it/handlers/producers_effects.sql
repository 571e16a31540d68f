select jsonb_build_object(
    'outbound', (select jsonb_agg(status) from messages where direction = 'outbound'),
    'solution_needed', (select count(*) from events where event_type = 'user.inquiry.solution_needed'),
    'verification', (select jsonb_agg(event_type) from events where event_type like 'user.%' and created_by = 'task_processor' and event_type <> 'user.inquiry.solution_needed'),
    'credits', (select credit_balance from users where phone_number = '+3'),
    'reward_told_later', (select count(*) from agent_tasks where task_type = 'notify_expert_of_impact' and status = 'pending'),
    'routed', (select count(*) from events where event_type = 'community.request_routed'),
    'mail_for_others', (select count(*) from events where event_type = 'intro.email_requested'),
    'summaries', (select count(*) from agent_tasks where task_type = 'create_conversation_summary'),
    'asked_for_later', (select jsonb_agg(distinct task_type) from agent_tasks where status = 'pending'),
    'workflow', (select status from solution_workflows)
)
