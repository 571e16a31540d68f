-- What the customer's services insert, with the columns they name and no others: spec/seed_004_processor.md §5.3–5.5.
insert into solution_workflows (id, user_id, request_description, current_step)
values ('00000000-0000-4000-8000-0000000000f1', '00000000-0000-4000-8000-000000000001', 'find a CRM', 'awaiting_experts');
insert into community_requests (id, requesting_agent_type, requesting_user_id, context_id, context_type, question, expertise_needed)
values (
    '00000000-0000-4000-8000-0000000000d1', 'solution_saga', '00000000-0000-4000-8000-000000000001',
    '00000000-0000-4000-8000-0000000000f1', 'solution_workflow', 'Which CRM?', '{crm}'
);
insert into community_responses (id, request_id, user_id, response_text, verbatim_answer)
values (
    '00000000-0000-4000-8000-0000000000e1', '00000000-0000-4000-8000-0000000000d1',
    '00000000-0000-4000-8000-000000000003', 'Take Acme', 'take acme'
);

-- The event-processor: every column, the status left to its default.
insert into agent_tasks (task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority, context_json, created_by)
values
    ('research_solution', 'solution_saga', '00000000-0000-4000-8000-000000000001', null, null, now(), 'high',
        '{"requestDescription": "find a CRM", "category": "sales", "urgency": "high", "conversationId": "00000000-0000-4000-8000-000000000011", "eventId": "00000000-0000-4000-8000-00000000ee01"}', 'event_processor'),
    ('process_community_response', 'solution_saga', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000f1', 'solution_workflow', now(), 'medium',
        '{"responseId": "00000000-0000-4000-8000-0000000000e1", "requestId": "00000000-0000-4000-8000-0000000000d1", "eventId": "00000000-0000-4000-8000-00000000ee02"}', 'event_processor'),
    ('community_response_available', 'account_manager', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000e1', 'community_response', now(), 'high',
        '{"responseId": "00000000-0000-4000-8000-0000000000e1", "requestId": "00000000-0000-4000-8000-0000000000d1", "expertUserId": "00000000-0000-4000-8000-000000000003", "responseSummary": "Take Acme", "eventId": "00000000-0000-4000-8000-00000000ee03"}', 'event_processor'),
    ('community_request_available', 'account_manager', '00000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-0000000000d1', 'community_request', now(), 'medium',
        '{"requestId": "00000000-0000-4000-8000-0000000000d1", "question": "Which CRM?", "category": null, "expertiseNeeded": ["crm"], "requesterContext": "Q1", "desiredOutcome": "backchannel", "urgency": "medium", "requestSummary": "CRM advice", "contextId": "00000000-0000-4000-8000-0000000000f1", "contextType": "solution_workflow"}', 'event_processor'),
    ('solution_workflow_timeout', 'concierge', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000f1', 'solution_workflow', now(), 'high',
        '{"workflowId": "00000000-0000-4000-8000-0000000000f1", "requestDescription": "find a CRM", "findings": {"matchedInnovators": []}, "conversationId": "00000000-0000-4000-8000-000000000011", "eventId": "00000000-0000-4000-8000-00000000ee04"}', 'event_processor'),
    ('intro_followup_check', 'account_manager', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1', 'intro_opportunity', now(), 'high',
        '{"introId": "00000000-0000-4000-8000-0000000000b1", "userQuestion": "Did Tony answer?", "conversationId": "00000000-0000-4000-8000-000000000011", "eventId": "00000000-0000-4000-8000-00000000ee05"}', 'event_processor'),
    ('notify_user_of_priorities', 'concierge', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1', 'intro_opportunity', now(), 'medium',
        '{"reason": "intro_completed", "creditsAwarded": 50, "introId": "00000000-0000-4000-8000-0000000000b1", "eventId": "00000000-0000-4000-8000-00000000ee06"}', 'event_processor'),
    ('notify_user_of_priorities', 'concierge', '00000000-0000-4000-8000-000000000004', null, null, now() + interval '1 second', 'high',
        '{"reason": "user_verified", "verificationCompletedAt": "2026-01-01T00:00:00Z", "eventId": "00000000-0000-4000-8000-00000000ee07"}', 'event_processor');
insert into agent_tasks (task_type, agent_type, user_id, scheduled_for, priority, context_json, created_by)
values ('notify_user_of_priorities', 'concierge', '00000000-0000-4000-8000-000000000001', now(), 'urgent',
    '{"reason": "urgent_priorities_detected", "urgentCount": 2}', 'event_processor');

-- The agents, who often leave out who they are.
insert into agent_tasks (task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority, context_json)
values
    ('notify_user_of_priorities', 'account_manager', '00000000-0000-4000-8000-000000000003', null, null, now(), 'urgent',
        '{"priorities": [{"item_type": "community_request", "value_score": 96}], "itemCount": 1, "maxScore": 96, "createdBy": "account_manager", "createdAt": "2026-01-01T00:00:00Z"}'),
    ('solution_workflow_timeout', 'solution_saga', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000f1', 'solution_workflow', now(), 'medium',
        '{"workflowId": "00000000-0000-4000-8000-0000000000f1", "step": "expert_responses_timeout"}'),
    ('intro_followup_check', 'intro_handler', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1', 'intro_opportunity', now(), 'medium',
        '{"introId": "00000000-0000-4000-8000-0000000000b1"}'),
    ('verify_user', 'bouncer', '00000000-0000-4000-8000-000000000002', null, null, now(), 'high',
        '{"email": "ben@example.com", "linkedin_url": "https://linkedin.com/in/ben"}'),
    ('send_introduction', 'intro_handler', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000b1', 'intro_opportunity', now(), 'high',
        '{"introOpportunityId": "00000000-0000-4000-8000-0000000000b1", "connectorUserId": "00000000-0000-4000-8000-000000000001", "prospectName": "Tony Katz", "innovatorName": "Rob"}'),
    ('process_community_request', 'agent_of_humans', '00000000-0000-4000-8000-000000000001', null, null, now(), 'medium',
        '{"requestingAgentType": "concierge", "requestingUserId": "00000000-0000-4000-8000-000000000001", "contextId": "00000000-0000-4000-8000-000000000011", "contextType": "conversation", "question": "Who knows a lawyer?", "category": "law", "expertiseNeeded": ["law"]}'),
    ('re_engagement_check', 'bouncer', '00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000012', 'conversation', now(), 'medium',
        '{"current_step": "email", "missing_fields": ["email"], "last_interaction_at": "2026-01-01T00:00:00Z", "attemptCount": 1}'),
    ('re_engagement_check', 'concierge', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000011', 'conversation', now(), 'low',
        '{"throttled": true, "throttledReason": "7_day_limit", "lastAttemptDate": "2026-01-01"}'),
    ('re_engagement_check', 'innovator', '00000000-0000-4000-8000-000000000003', null, null, now(), 'low',
        '{"attemptCount": 1, "reason": "quiet"}'),
    ('re_engagement_check', 'account_manager', '00000000-0000-4000-8000-000000000004', null, null, now(), 'low',
        '{"reason": "weekly", "trigger": "scheduled_review"}'),
    ('schedule_followup', 'concierge', '00000000-0000-4000-8000-000000000001', null, null, now(), 'medium',
        '{"reason": "the demo", "originalMessageId": "m-1", "conversationId": "00000000-0000-4000-8000-000000000011"}'),
    ('update_user_profile', 'bouncer', '00000000-0000-4000-8000-000000000002', null, null, now(), 'high',
        '{"field": "company", "value": "Acme", "source": "conversation"}');
