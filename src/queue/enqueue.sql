-- Adds tasks. Arrays $1 to $14, one element a task; the answer has their ids in the order given.
--
-- A unique_key that is taken adds nothing, and the row that has it is neither locked nor written: the answer is its id.
-- The id is missing where that row was committed by somebody else after this statement began; then it is looked up by
-- another one. Keys are inserted in their order, so that two calls never wait for each other.
with fresh as materialized (
    select *
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::timestamptz[], $8::text[],
        $9::int4[], $10::text[], $11::text[], $12::text[], $13::int4[],
        $14::float8[]
    ) with ordinality as f (
        id, task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority,
        max_retries, context, created_by, unique_key, timeout_seconds, delay, position
    )
),
inserted as (
    insert into agent_tasks (
        id, task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority,
        max_retries, context_json, created_by, unique_key, timeout_seconds
    )
    select
        id, task_type, agent_type, user_id, context_id, context_type,
        coalesce(scheduled_for, clock_timestamp() + make_interval(secs => delay)),
        priority, max_retries, context::jsonb, created_by, unique_key, timeout_seconds
    from fresh
    order by unique_key, id
    on conflict (unique_key) where unique_key is not null do nothing
    returning id
)
select coalesce(inserted.id, holder.id) as id, inserted.id is null as existed
from fresh
left join inserted on inserted.id = fresh.id
left join agent_tasks holder
    on inserted.id is null and holder.unique_key is not null and holder.unique_key = fresh.unique_key
order by fresh.position
