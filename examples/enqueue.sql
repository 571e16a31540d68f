-- Adding tasks from SQL: by the function enqueue_task, which checks what it is given, or by a plain insert.

-- The shortest. It answers the task's id.
select enqueue_task('echo', '{"hello": 1}');

-- All that can be said. At most one task ever has a unique_key: if it is taken, the answer is the id of the task that has it.
select enqueue_task(
    task_type => 'echo',
    context_json => '{"hello": 2}',
    agent_type => 'billing',
    priority => 'high',
    scheduled_for => now() + interval '5 minutes',
    max_retries => 5,
    timeout_seconds => 60,
    unique_key => 'invoice-17',
    created_by => 'billing'
);

-- A plain insert does as well: for many rows at once, or where you may not create functions.
insert into agent_tasks (task_type, agent_type, context_json)
select 'echo', 'billing', jsonb_build_object('invoice', number) from generate_series(18, 20) as number;
