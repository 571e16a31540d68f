-- For the claim (agent_tasks_due_v1) and the look for the next due task (agent_tasks_next_v1): one lane per
-- (task_type, rank), each in order of service. A case expression, not a generated column: adding one would rewrite
-- the customer's table. Tasks that have crashed twice are in a lane of their own (the next index).
create index concurrently if not exists agent_tasks_due on agent_tasks (
    task_type,
    (case priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end),
    scheduled_for,
    id
) where status = 'pending' and crash_count < 2;
