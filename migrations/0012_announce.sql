-- Announces new tasks to listening workers, once per inserting statement and once per transaction at the most.
--
-- A NOTIFY serialises the commits of all who send one (measured: it costs single inserts 58 % of their rate), so it is
-- left out while a busy worker has promised, in agent_tasks_wake, to look again by itself, until every transaction that
-- has been quiet is over (src/worker/quiet.rs).
--
-- `security definer`: whoever may insert a task need not be able to read that table. Nothing that goes wrong here may
-- cost the customer the insert; workers find the task at their next poll.
do $migration$
declare
    api_role text;
begin
    execute format($ddl$
        create or replace function agent_tasks_announce() returns trigger
        language plpgsql
        security definer
        set search_path = %I, pg_temp
        as $function$
        begin
            if not exists (select from agent_tasks_wake where quiet_until > clock_timestamp()) then
                perform pg_notify('agent_tasks', '');
            end if;
            return null;
        exception when others then
            return null;
        end
        $function$
    $ddl$, current_schema());

    revoke all on function agent_tasks_announce() from public;
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on function agent_tasks_announce() from %I', api_role);
    end loop;

    if not exists (
        select from pg_trigger where tgrelid = 'agent_tasks'::regclass and tgname = 'agent_tasks_announce'
    ) then
        create trigger agent_tasks_announce after insert on agent_tasks
            for each statement execute function agent_tasks_announce();
    end if;
end
$migration$;
