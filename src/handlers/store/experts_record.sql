-- What a user knows about, and how the last five answers were received.
with latest as (
    select usefulness_score
    from community_responses
    where user_id = $1
    order by created_at desc
    limit 5
)
select
    coalesce(expertise, '{}') as expertise,
    (select count(*) from latest) as answers,
    (select count(*) from latest where usefulness_score >= 7) as useful
from users
where id = $1
