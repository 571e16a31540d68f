-- For enqueue with a unique_key. Rows without one have no entry here.
create unique index concurrently if not exists agent_tasks_unique_key on agent_tasks (unique_key)
where unique_key is not null;
