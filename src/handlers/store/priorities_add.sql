-- Makes an item one of a user's priorities, once. Answers the priority as it stands, and whether it is this task's own.
with added as (
    insert into user_priorities (id, user_id, priority_rank, item_type, item_id, value_score, status)
    select $1, $2, $3, $4, $5, $6::numeric, 'active'
    where not exists (select from user_priorities where user_id = $2 and item_type = $4 and item_id = $5)
    on conflict do nothing
    returning id, priority_rank, value_score
)
select id = $1 as own, priority_rank, value_score::float8 as value_score from added
union all
select id = $1, priority_rank, value_score::float8
from user_priorities
where user_id = $2 and item_type = $4 and item_id = $5
