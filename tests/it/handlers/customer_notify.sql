-- The shape whose trigger tells the sender by a notification and marks the message. Its migrations have come further:
-- a prospect has two names, and presentations are counted.
create function hand_to_sender() returns trigger language plpgsql as $$
begin
    if new.direction = 'outbound' and new.status = 'pending' then
        perform pg_notify('send_sms', row_to_json(new)::text);
        update messages set status = 'queued_for_send' where id = new.id;
    end if;
    return new;
end $$;
create trigger message_sent after insert on messages for each row execute function hand_to_sender();

alter table intro_opportunities drop column prospect_name;
alter table intro_opportunities add column first_name varchar(255) not null, add column last_name varchar(255) not null;
alter table user_priorities add column item_summary text;
