-- Adds tasks. Arrays $1 to $14, one element a task; the answer has their ids in the order given.
--
-- A unique_key that is taken changes nothing and answers with the id of the task that has it. The update that does
-- nothing is what makes the answer certain while another process inserts the same key.
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
    on conflict (unique_key) where unique_key is not null do update set unique_key = excluded.unique_key
    returning id, unique_key
)
select inserted.id, inserted.id <> fresh.id as existed
from fresh
join inserted on coalesce(inserted.unique_key, inserted.id::text) = coalesce(fresh.unique_key, fresh.id::text)
order by fresh.position
