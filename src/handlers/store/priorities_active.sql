-- What is worth a user's attention now, best first. As JSON: which texts describe an item depends on how far the
-- customer's own migrations have come.
select jsonb_strip_nulls(jsonb_build_object(
    'id', id,
    'itemType', item_type,
    'itemId', item_id,
    'rank', priority_rank,
    'valueScore', value_score,
    'summary', coalesce(to_jsonb(priority) ->> 'item_summary', to_jsonb(priority) ->> 'content')
))
from user_priorities priority
where user_id = $1 and status = 'active' and (expires_at is null or expires_at > clock_timestamp())
order by priority_rank, value_score desc nulls last, created_at, id
limit $2
