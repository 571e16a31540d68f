-- The next messages of a conversation after the one its summary reaches to, oldest first. What agents are told is part of
-- the order but not of the conversation, so its text is left out. A message without a date is older than all that have one:
-- as the last one of a summary it must not leave every message after itself.
with summary as (
    select coalesce(last.created_at, '-infinity') as said_at, last.id
    from conversations
    join messages last on last.id = conversations.last_summary_message_id
    where conversations.id = $1
)
select
    message.id,
    case when message.role <> 'system' then message.role::text || ': ' || left(message.content, $3) end as line
from messages message
where message.conversation_id = $1
    and not exists (
        select from summary
        where (coalesce(message.created_at, '-infinity'), message.id) <= (summary.said_at, summary.id)
    )
order by coalesce(message.created_at, '-infinity'), message.id
limit $2
