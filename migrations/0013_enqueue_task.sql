-- enqueue_task: adds a task from SQL, as queue::NewTask does from code, and answers its id.
--
-- `security invoker`: whoever calls it needs the right to insert, and row level security holds. It is closed to all but
-- its owner and, on Supabase, `service_role`: a function in `public` can be called from the internet there. A function of
-- this name that exists is left alone: customers have had theirs.
do $migration$
declare
    api_role text;
begin
    if exists (
        select from pg_proc where proname = 'enqueue_task' and pronamespace = current_schema()::regnamespace
    ) then
        raise notice 'a function enqueue_task exists and is left as it is';
        return;
    end if;

    execute format($ddl$
        create function enqueue_task(
            task_type text,
            context_json jsonb default '{}',
            agent_type text default 'system',
            priority text default 'medium',
            scheduled_for timestamptz default null,
            user_id uuid default null,
            context_id uuid default null,
            context_type text default null,
            max_retries integer default null,
            timeout_seconds integer default null,
            unique_key text default null,
            created_by text default null
        ) returns uuid
        language plpgsql
        security invoker
        set search_path = %I, pg_temp
        as $function$
        #variable_conflict use_column
        declare
            given record;
            task_id uuid;
        begin
            for given in
                select * from (values
                    ('task_type', coalesce(enqueue_task.task_type, ''), 100),
                    ('agent_type', coalesce(enqueue_task.agent_type, ''), 50),
                    ('context_type', enqueue_task.context_type, 50),
                    ('created_by', enqueue_task.created_by, 100),
                    ('unique_key', enqueue_task.unique_key, 255)
                ) as v (name, value, longest)
            loop
                if btrim(given.value) = '' or length(given.value) > given.longest then
                    raise exception using errcode = '22023',
                        message = format('%%s must have 1 to %%s characters', given.name, given.longest);
                end if;
            end loop;
            if coalesce(enqueue_task.priority, '') not in ('urgent', 'high', 'medium', 'low') then
                raise exception using errcode = '22023', message = 'priority is none of urgent, high, medium, low';
            end if;
            if enqueue_task.max_retries not between 0 and 30 then
                raise exception using errcode = '22023', message = 'max_retries must be from 0 to 30';
            end if;
            if enqueue_task.timeout_seconds not between 1 and 604800 then
                raise exception using errcode = '22023', message = 'timeout_seconds must be from 1 to 604800';
            end if;
            if not isfinite(enqueue_task.scheduled_for)
                or enqueue_task.scheduled_for > clock_timestamp() + interval '5 years'
            then
                raise exception using errcode = '22023', message = 'scheduled_for is more than five years ahead';
            end if;
            if octet_length(enqueue_task.context_json::text) > 1048576 then
                raise exception using errcode = '22023', message = 'context_json has more than 1048576 bytes';
            end if;

            -- The holder of a key may have been added since, or deleted since: then once more.
            for round in 1..5 loop
                insert into agent_tasks (
                    task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority,
                    max_retries, context_json, created_by, unique_key, timeout_seconds
                )
                values (
                    enqueue_task.task_type, enqueue_task.agent_type, enqueue_task.user_id, enqueue_task.context_id,
                    enqueue_task.context_type, coalesce(enqueue_task.scheduled_for, clock_timestamp()),
                    enqueue_task.priority, enqueue_task.max_retries, coalesce(enqueue_task.context_json, '{}'),
                    enqueue_task.created_by, enqueue_task.unique_key, enqueue_task.timeout_seconds
                )
                on conflict (unique_key) where unique_key is not null do nothing
                returning id into task_id;
                if task_id is null then
                    select id into task_id from agent_tasks where unique_key = enqueue_task.unique_key;
                end if;
                if task_id is not null then
                    return task_id;
                end if;
            end loop;
            raise exception using errcode = '40001',
                message = 'unique_key is being added and deleted by others all the time';
        end
        $function$
    $ddl$, current_schema());

    revoke all on function enqueue_task from public;
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on function enqueue_task from %I', api_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        grant execute on function enqueue_task to service_role;
    end if;
end
$migration$;
