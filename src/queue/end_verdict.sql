-- What became of each ending, in the order given. `already` is for a reply that was lost: this very token ended the
-- attempt in this very way. `locked`: the row still waits for this ending, and somebody else holds it at this moment or
-- has just let go of it, having changed it: the next try will tell. `refused`: a trigger swallowed the update. Anything
-- else that was not accepted is stale. Nothing was written for any of these.
select case
    when ended.id is not null then 'accepted'
    when exists (
        select from agent_tasks task
        where task.id = ending.id
            and task.lease_token = ending.token
            and (
                task.status || '' = case ending.verb
                    when 'complete' then 'completed'
                    when 'fail' then 'failed'
                    when 'cancel' then 'cancelled'
                    else 'pending'
                end
                or (task.status || '' = 'cancelled' and task.cancel_requested_at is not null)
            )
    ) then 'already'
    when exists (
        select from held join agent_tasks task on task.id = held.id and task.ctid = held.place
        where held.id = ending.id
    ) then 'refused'
    when exists (
        select from agent_tasks task
        where task.id = ending.id and task.lease_token = ending.token and task.status || '' = 'processing'
    ) then 'locked'
    else 'stale'
end as verdict
from ending
left join ended on ended.position = ending.position
order by ending.position
