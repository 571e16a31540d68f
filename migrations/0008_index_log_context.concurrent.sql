-- For the history of one task (src/queue/read/tasks.rs).
create index concurrently if not exists agent_actions_log_context on agent_actions_log (context_id, created_at);
