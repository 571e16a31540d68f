-- Writes down what an expert's answer was worth ($4, 1 to 10), gives the expert $6 credits if that is not null, and adds
-- the insight to the workflow that asked. One statement: an attempt that is cut off has done all of it or nothing.
-- Answers no row where another score stands: of two tasks that judge one answer the first decides.
-- The table of credits has no `created_by`, whatever the original's statement says.
with answer as (
    select id, user_id, response_text, status
    from community_responses
    where id = $1 and (usefulness_score is null or least(greatest(usefulness_score, 1), 10) = $4)
    for update
), credit as (
    insert into credit_events (
        id, user_id, event_type, amount, reference_type, reference_id, idempotency_key, description, processed
    )
    select
        $3, user_id, 'community_response', $6, 'community_response', id, 'community_response_' || id,
        'Expert insight (usefulness: ' || $4 || '/10)', true
    from answer
    where $6 is not null
        and not exists (select from credit_events where idempotency_key = 'community_response_' || $1)
    on conflict do nothing
    returning amount
), insight as (
    update solution_workflows
    set community_insights = coalesce(community_insights, '[]') || jsonb_build_object(
            'responseId', answer.id,
            'expertId', answer.user_id,
            'summary', answer.response_text,
            'usefulnessScore', $4,
            'evaluatedAt', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        ),
        updated_at = clock_timestamp()
    from answer
    where solution_workflows.id = $2
        and not coalesce(community_insights, '[]') @> jsonb_build_array(jsonb_build_object('responseId', answer.id))
)
update community_responses response
set usefulness_score = $4,
    -- The text that came with the score stands, too.
    impact_description = coalesce(
        case when response.usefulness_score is not null then response.impact_description end,
        nullif($5, ''),
        response.impact_description
    ),
    credits_awarded = coalesce(credit.amount, response.credits_awarded),
    credited_at = case when credit.amount is null then response.credited_at else clock_timestamp() end,
    status = case
        when credit.amount is not null and coalesce(response.status, 'provided') = 'provided' then 'rewarded'
        else response.status
    end
from answer
left join credit on true
where response.id = answer.id
returning response.id
