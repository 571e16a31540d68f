-- What the customer's own database has beside the tables, as far as it reacts to what we write: its constraints and
-- the triggers of both of its shapes. Written from spec/seed_004_processor.md §5.5.
alter table conversations alter column user_id set not null, alter column phone_number set not null;
alter table messages alter column conversation_id set not null, alter column user_id set not null;
alter table user_priorities alter column user_id set not null;
alter table intro_opportunities alter column connector_user_id set not null;
alter table agent_actions_log add foreign key (user_id) references users (id);

create function announce_event() returns trigger language plpgsql as $$
begin
    perform pg_notify('agent_events', jsonb_build_object(
        'id', new.id, 'event_type', new.event_type, 'aggregate_id', new.aggregate_id, 'payload', new.payload
    )::text);
    return new;
end $$;
create trigger event_announced after insert on events for each row execute function announce_event();

create function keep_credit_balance() returns trigger language plpgsql as $$
begin
    update users
    set credit_balance = (
        select coalesce(sum(amount), 0) from credit_events where user_id = new.user_id and processed
    )
    where id = new.user_id;
    return new;
end $$;
create trigger credit_processed after insert or update on credit_events
    for each row when (new.processed) execute function keep_credit_balance();

create function count_messages() returns trigger language plpgsql as $$
declare
    since integer;
begin
    update conversations set messages_since_summary = messages_since_summary + 1
    where id = new.conversation_id returning messages_since_summary into since;
    if since >= 50 then
        insert into agent_tasks (task_type, agent_type, scheduled_for, priority, context_json, created_by)
        values (
            'create_conversation_summary', 'system', now(), 'medium',
            jsonb_build_object('conversation_id', new.conversation_id), 'conversation_summary_trigger'
        );
        update conversations set messages_since_summary = 0 where id = new.conversation_id;
    end if;
    return new;
end $$;
create trigger messages_counted after insert on messages for each row execute function count_messages();
