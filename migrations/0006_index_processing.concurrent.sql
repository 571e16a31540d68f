-- For rescue and release_unknown: all that is running, anywhere. lease_expires_at is left out on purpose: an index
-- on it would turn every renewal into a write of all indexes.
create index concurrently if not exists agent_tasks_processing on agent_tasks (id) where status = 'processing';
