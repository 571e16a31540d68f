-- Leaves a finding ($4, JSON text) for the agent of a user, once: as a message in the conversation $3, or in the message
-- queue if there is none. The message is inbound, or the user would get it as a text. An earlier run may have found the
-- other place open, so both are looked at.
with place as (
    select $3 as conversation_id
    where not exists (select from messages where id = $1)
        and not exists (select from message_queue where id = $1)
), message as (
    insert into messages (id, conversation_id, user_id, role, content, direction, status)
    select $1, conversation_id, $2, 'system', $4, 'inbound', 'pending'
    from place
    where conversation_id is not null
    on conflict (id) do nothing
)
insert into message_queue (
    id, user_id, agent_id, message_data, scheduled_for, priority, status, requires_fresh_context
)
select $1, $2, $5, $4::jsonb, clock_timestamp(), $6, 'queued', true
from place
where conversation_id is null
on conflict (id) do nothing
