-- Adds a message, once. `on conflict` alone would not do: it lets a trigger `before insert` run first, and the customer's
-- sends the text message.
insert into messages (id, conversation_id, user_id, role, content, direction, status)
select $1, $2, $3, $4, $5, $6, 'pending'
where not exists (select from messages where id = $1)
on conflict (id) do nothing
