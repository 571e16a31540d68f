-- One round of a client: claim 500 in order of service, and end them with a log row each. pgbench keeps what the claim
-- returned and hands it back, as a worker would.
with due as materialized (
    select ctid
    from agent_tasks
    where status = 'pending'
        and task_type = any ('{echo,re_engagement_check,research_solution,schedule_followup,update_user_profile}')
        and scheduled_for <= now()
    order by
        (case priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end),
        scheduled_for,
        id
    limit 500
    for update skip locked
),
claimed as (
    update agent_tasks task
    set status = 'processing',
        lease_token = gen_random_uuid(),
        lease_expires_at = clock_timestamp() + interval '30 seconds',
        claimed_by = 'yardstick',
        attempt = task.attempt + 1,
        last_attempted_at = clock_timestamp()
    from due
    where task.ctid = due.ctid
    returning task.id, task.lease_token, task.context_json
)
select
    coalesce(array_agg(id), '{}')::text as ids,
    coalesce(array_agg(lease_token), '{}')::text as tokens,
    coalesce(array_agg(context_json), '{}')::text as results
from claimed \gset
with ending as materialized (
    select * from unnest(:ids::uuid[], :tokens::uuid[], :results::jsonb[]) as e (id, token, result)
),
ended as (
    update agent_tasks task
    set status = 'completed',
        result_json = ending.result,
        completed_at = clock_timestamp(),
        lease_expires_at = null
    from ending
    where task.id = ending.id and task.lease_token = ending.token and task.status || '' = 'processing'
    returning task.id, task.task_type, task.user_id, task.attempt, task.lease_token, task.context_json, ending.result
)
insert into agent_actions_log (
    agent_type, action_type, user_id, context_id, context_type, latency_ms, input_data, output_data, attempt, lease_token
)
select
    'task_processor', 'process_' || task_type, user_id, id, 'agent_task', 0, context_json, result, attempt, lease_token
from ended;
