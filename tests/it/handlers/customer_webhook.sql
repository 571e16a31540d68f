-- The shape whose trigger calls the sender by pg_net, here one that only writes down what it is asked to send.
create schema net;
create table net.calls (id bigint generated always as identity, url text, body jsonb);
create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',
    timeout_milliseconds integer default 5000
) returns bigint language sql as $$
    insert into net.calls (url, body) values (http_post.url, http_post.body) returning id
$$;

create function call_sender() returns trigger language plpgsql security definer as $$
declare
    request bigint;
begin
    select net.http_post(
        url := 'https://sms-sender.example/send-sms',
        headers := '{"Content-Type": "application/json"}',
        body := jsonb_build_object(
            'type', tg_op, 'table', tg_table_name, 'record', row_to_json(new), 'old_record', null
        )
    ) into request;
    return new;
end $$;
create trigger message_sent after insert on messages
    for each row when (new.status = 'pending' and new.direction = 'outbound') execute function call_sender();

alter table user_priorities drop column presentation_count;
alter table intro_opportunities alter column prospect_name set not null;
