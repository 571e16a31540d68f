-- Publishes an event, once. `on conflict` alone would not do: it lets a trigger `before insert` run first, which may be
-- what announces the event.
insert into events (id, event_type, aggregate_id, aggregate_type, payload, metadata, processed, version, created_by)
select $1, $2, $3, $4, $5, $6, false, 1, 'task_processor'
where not exists (select from events where id = $1)
on conflict (id) do nothing
