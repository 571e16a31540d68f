-- Verified users but $2 whose expertise has some of $1, whatever the case; the best match first, then the most active.
select id
from users
cross join lateral (
    select count(distinct lower(known)) as matches
    from unnest(expertise) as known
    where lower(known) in (select lower(wanted) from unnest($1) as wanted)
) as overlap
where verified and matches > 0 and id is distinct from $2
order by matches desc, last_active_at desc nulls last, id
limit $3
