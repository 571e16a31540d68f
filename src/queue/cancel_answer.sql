-- The notification wakes the process that runs a task; without LISTEN it finds out at its next renewal.
select
    cancelled.id,
    cancelled.status = 'cancelled' as done,
    case
        when cancelled.status = 'processing' then pg_notify('agent_tasks_cancel', cancelled.id::text)::text
    end as told
from cancelled
