-- The oldest open request of the last seven days in the same category ($1) that asks for some of the same expertise ($2).
select id
from community_requests
where status = 'open'
    and created_at > statement_timestamp() - interval '7 days'
    and category = $1
    and exists (
        select from unnest(expertise_needed) as wanted
        where lower(wanted) in (select lower(also) from unnest($2) as also)
    )
order by created_at, id
limit 1
