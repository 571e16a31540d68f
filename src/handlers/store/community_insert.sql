-- Makes a request to the community, once. It expires after seven days.
insert into community_requests (
    id, requesting_agent_type, requesting_user_id, context_id, context_type, question, category, expertise_needed,
    target_user_ids, requester_context, desired_outcome, urgency, request_summary, status, expires_at
)
select
    $1, $2, $3, $4, $5, $6, $7, $8,
    $9, $10, $11, $12, $13, 'open', clock_timestamp() + interval '7 days'
where not exists (select from community_requests where id = $1)
on conflict (id) do nothing
