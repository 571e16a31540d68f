-- Deletes at most $4 rows of TABLE that are OLD by more than $1 seconds, of the pages from $2 on and before $3; nothing
-- while another process does the same. LOCK leaves out what somebody else is changing.
--
-- The places are an array: for a join the planner might read the whole table.
with turn as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('prune', 'TABLE'::regclass::oid::bigint)) as ours
),
deleted as (
    delete from only TABLE
    where ctid = any (array(
        select ctid from only TABLE
        where (select ours from turn)
            and ctid >= $2::text::tid
            and ctid < $3::text::tid
            and OLD < statement_timestamp() - make_interval(secs => $1)
        limit $4
        LOCK
    ))
    returning ctid
)
select (select ours from turn), count(*), (max(ctid)::text::point)[0]::int8 from deleted
