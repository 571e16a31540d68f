-- For reserve_suspect and next_due: tasks whose process died under them twice in a row. They run with no other task in
-- their process, so the ordinary claim must not meet them. Almost always empty, so it costs other tasks nothing.
create index concurrently if not exists agent_tasks_suspect on agent_tasks (scheduled_for, id, task_type)
where status = 'pending' and crash_count >= 2;
