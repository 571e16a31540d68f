-- What must hold after every run, whatever was done to it. Every row that a query answers is a violation: the invariant,
-- the task (or what else it is about), and what is wrong. `psql -f` will do, too, on the database of a run that was kept.
--
-- The tables of the queue are one witness, the journal in the schema `chaos` is the other: it was written outside the
-- database while the run went on, and loaded afterwards (verdict.rs says how).
--
--   chaos.acknowledged  a row for every task whose addition was acknowledged to who added it
--   chaos.cancelled     a row for every cancellation that was acknowledged, and when: `done` of a task that waited,
--                       `requested` of one that ran
--   chaos.effects       a row for every time a handler of the type `chaos` came by: phase `start`, `beat` while it sleeps,
--                       and one for how it left: `finish`, `fail`, `snooze`, `cancel`, or `dropped` if others ended it
--   chaos.told          a row for every ending that a process reported in its log, once the database had taken it
--   chaos.frozen        a row for every time a process was stopped for longer than its leases, and when it went on
--   chaos.kills         a row for every `kill -9`
--   chaos.told_to_stop  a row for every SIGTERM
--   chaos.exits         a row for every process that ended: `signal_` or `code_`, and which
--   chaos.windows       a row for every fault: whom it hit (`w<slot>` or everybody), from when until when
--   chaos.terms         what the processes were told: the wait before the first retry, and the time between two rescues
--
-- The numbers are those of the catalogue that this follows. Not here, since there is nothing yet that they could be about:
-- I15 (outbox), I16 and I17 (transfers and holds), I18 (reputation).

-- So that I21 reads counters of now.
checkpoint;

-- Every log row ends an attempt, except for the cancellation of a task that waited: that one names no token.
-- kind: complete, failure (put back or given up), snooze, release, cancel, recover (rescue).
drop table if exists pg_temp.ends;
create temporary table ends as
select
    log.context_id as task_id,
    log.attempt,
    case
        when action_type not like 'process\_%' then split_part(action_type, '_', 1)
        when log.error is null then 'complete'
        else 'failure'
    end as kind,
    log.lease_token,
    log.output_data,
    log.created_at
from agent_actions_log log
where log.agent_type = 'task_processor' and not (log.action_type like 'cancel\_%' and log.lease_token is null);
create index on ends (task_id, attempt);

-- When attempts started: as their handlers say and, of the last attempt, as its row says.
drop table if exists pg_temp.starts;
create temporary table starts as
select task_id, attempt, at from chaos.effects where phase = 'start'
union all
select id, attempt, last_attempted_at from agent_tasks where attempt > 0;
create index on starts (task_id, attempt);

-- What a handler's notes say, but for those that cannot be held against anybody: a process that was frozen may come to the
-- next await of a handler before it notices how late it is. It does so at once, and once.
drop table if exists pg_temp.marks;
create temporary table marks as
select task_id, attempt, phase, at, process
from (
    select effect.*, thawed,
        row_number() over (partition by effect.process, thawed, task_id, attempt, phase = 'dropped' order by at) as nth
    from chaos.effects effect
    left join chaos.frozen
        on frozen.process = effect.process and phase <> 'start' and at between thawed and thawed + interval '100 ms'
) seen
where thawed is null or nth > 1;
create index on marks (task_id, attempt);
analyze marks, ends, starts;

-- I01 A task is in exactly one state, and its columns agree on which.
select 'I01', id, format('status %s, lease until %s, completed at %s', status, lease_expires_at, completed_at)
from agent_tasks
where case status
    when 'pending' then lease_expires_at is not null or completed_at is not null
    when 'processing' then lease_token is null or lease_expires_at is null or claimed_by is null or completed_at is not null
    else status is null or status not in ('completed', 'failed', 'cancelled')
        or completed_at is null or lease_expires_at is not null
end;

-- I02 A completion was accepted once, and a task is completed by the one token whose completion was accepted.
select 'I02', task.id, format('%s, %s completions accepted, by %s', status, coalesce(accepted, 0), tokens)
from agent_tasks task
left join (
    select task_id, count(*) as accepted, array_agg(lease_token) as tokens from ends where kind = 'complete' group by task_id
) done on done.task_id = task.id
where coalesce(accepted, 0) <> case status when 'completed' then 1 else 0 end
    or (status = 'completed' and (lease_token <> all (tokens)) is not false);

-- I03 Attempts are numbered from 1 without a gap, and each that is not running ended exactly once.
select 'I03', coalesce(task.id, ended.task_id), format('attempt %s, %s ends of %s attempts from %s to %s', attempt, ends, attempts, low, high)
from agent_tasks task
full join (
    select task_id, count(*) as ends, count(distinct attempt) as attempts, min(attempt) as low, max(attempt) as high
    from ends group by task_id
) ended on ended.task_id = task.id
where task.id is null
    or coalesce(ends, 0) <> task.attempt - case status when 'processing' then 1 else 0 end
    or ends <> attempts or low <> 1 or high <> ends;

-- I04 No attempt starts before the one before it has ended; no handler is still there when the next attempt has started,
-- not for a moment; and none starts or goes on after its own end, where a busy machine gets a moment.
select 'I04', ends.task_id, format('attempt %s ended at %s, the next one started at %s', ends.attempt, created_at, at)
from ends
join starts on starts.task_id = ends.task_id and starts.attempt = ends.attempt + 1
where at < created_at
union all
select 'I04', mark.task_id, format('attempt %s was there at %s by its %s in %s, the next one since %s', mark.attempt, mark.at, phase, process, starts.at)
from (select distinct on (task_id, attempt) * from marks order by task_id, attempt, at desc) mark
join starts on starts.task_id = mark.task_id and starts.attempt = mark.attempt + 1
where mark.at > starts.at
union all
select 'I04', ends.task_id, format('attempt %s ended at %s by %s, its %s in %s was at %s', ends.attempt, created_at, kind, phase, process, at)
from ends
cross join chaos.terms
join (select distinct on (task_id, attempt) * from marks order by task_id, attempt, at desc) mark
    on mark.task_id = ends.task_id and mark.attempt = ends.attempt
where at > created_at + tick;

-- I05 Nothing is `processing` whose lease has been over for more than two looks of a rescuer. This and I20 are asked while
-- the run goes on, too (calm.rs).
select 'I05', id, format('the lease ended at %s', lease_expires_at)
from agent_tasks, chaos.terms
where status = 'processing' and lease_expires_at < clock_timestamp() - 2 * tick;

-- I06 Budgets are kept: a retry is spent by a failure and by nothing else, a crash by a rescue and by nothing else, and
-- neither is overdrawn. Any other ending of an attempt that was known to its process begins the crashes anew.
select 'I06', task.id, format('%s retries spent of %s, %s failures, %s crashes noted, %s in a row', retry_count, max_retries, failures, crash_count, crashes)
from agent_tasks task
join (
    select
        task_id,
        count(*) filter (where kind = 'failure') as failures,
        count(*) filter (where kind = 'recover' and attempt > calm) as crashes
    from (
        select *, coalesce(
            max(attempt) filter (where kind <> 'recover' and lease_token is not null) over (partition by task_id), 0
        ) as calm
        from ends
    ) spent
    group by task_id
) spent on spent.task_id = task.id
where retry_count > max_retries
    or failures <> retry_count + case when status = 'failed' and crashes = 0 then 1 else 0 end
    or crash_count <> crashes
    or crash_count > 3;

-- I07 Nothing starts before its time: not before it is due, not before a retry's wait is over (base, doubled with each),
-- not before a snoozed task's time.
select 'I07', ended.task_id, format('attempt %s ended at %s by %s, the next one started after %s', ended.attempt, created_at, kind, at - created_at)
from (
    select *, count(*) filter (where kind = 'failure') over (partition by task_id order by attempt) as failures from ends
) ended
cross join chaos.terms
join starts on starts.task_id = ended.task_id and starts.attempt = ended.attempt + 1
where at - created_at < case kind
    when 'failure' then retry_base * power(2, failures - 1)
    when 'snooze' then make_interval(secs => (output_data ->> 'delaySeconds')::float8)
end
union all
select 'I07', id, format('added at %s, due after %s ms, started at %s', created_at, context_json ->> 'due_ms', at)
from agent_tasks
join starts on starts.task_id = id and starts.attempt = 1
where at < created_at + (context_json ->> 'due_ms')::int8 * interval '1 ms';

-- I08 A task is given up only when its retries are spent, when its handler said so, or when it takes its process down
-- every time; and that is said of no other.
select 'I08', id, format('%s retries spent of %s, crash %s, %s', retry_count, max_retries, crash_count, error_log)
from agent_tasks
where status = 'failed'
    and case
        when crash_count = 3 then not context_json ? 'abort' or error_log not like 'poison%'
        else retry_count < max_retries and not context_json ? 'fail_permanently'
    end;

-- I09 What was acknowledged is there: under its id, and under its key.
select 'I09', acknowledged.task_id, format('acknowledged, key %s', acknowledged.unique_key)
from chaos.acknowledged
left join agent_tasks task on task.id = acknowledged.task_id
where task.id is null or task.unique_key is distinct from acknowledged.unique_key;

-- I10 What was said is so: an ending that a process reported was written for that attempt, a task whose cancellation was
-- acknowledged is cancelled, and a task that has ended has ended as its handler had it.
select 'I10', told.task_id, format('%s reported attempt %s as %s', process, told.attempt, ending)
from chaos.told
left join ends on ends.task_id = told.task_id and ends.attempt = told.attempt
    and kind = case when ending in ('retry', 'fail') then 'failure' else ending end
where ends.task_id is null
union all
select 'I10', task_id, format('its cancellation was acknowledged, it is %s', status)
from chaos.cancelled join agent_tasks on id = task_id
where how = 'done' and status <> 'cancelled'
union all
select 'I10', cancelled.task_id, format('its cancellation was acknowledged at %s, attempt %s ended at %s and another one started at %s', cancelled.at, ends.attempt, created_at, starts.at)
from chaos.cancelled
join ends on ends.task_id = cancelled.task_id and ends.created_at > cancelled.at
join starts on starts.task_id = ends.task_id and starts.attempt = ends.attempt + 1
where how = 'requested'
union all
select 'I10', id, format('meant to be %s, it is %s', context_json ->> 'fate', status)
from agent_tasks
where status in ('completed', 'failed', 'cancelled') and not case context_json ->> 'fate'
    when 'unwanted' then status in ('completed', 'cancelled')
    when 'poison' then status = 'failed'
    else status = context_json ->> 'fate'
end;

-- I11 Effects: a task is completed by an attempt whose handler came to its end; a handler starts and leaves once an attempt;
-- and one that came to its end completed the task, unless the process was cut off or told to stop, or the task was unwanted.
select 'I11', id, format('completed by attempt %s, whose handler did not come to its end', attempt)
from agent_tasks task
where task_type = 'chaos' and status = 'completed' and not exists (
    select from chaos.effects effect where effect.task_id = id and effect.attempt = task.attempt and phase = 'finish'
)
union all
select 'I11', task_id, format('attempt %s: %s', attempt, string_agg(phase || ' in ' || process, ', ' order by at))
from chaos.effects
where phase <> 'beat'
group by task_id, attempt
having count(*) filter (where phase = 'start') <> 1 or count(*) filter (where phase <> 'start') > 1
union all
select 'I11', effect.task_id, format('the handler of attempt %s came to its end at %s in %s, the attempt ended by %s', effect.attempt, at, process, kind)
from chaos.effects effect
join ends on ends.task_id = effect.task_id and ends.attempt = effect.attempt
join agent_tasks task on task.id = effect.task_id
where phase = 'finish' and not case kind
    when 'complete' then true
    when 'recover' then true
    when 'release' then exists (select from chaos.told_to_stop told where told.process = effect.process and told.at <= ends.created_at)
    when 'cancel' then context_json ->> 'fate' = 'unwanted'
    else false
end;

-- I12 No effect of an attempt that the database never gave to anybody.
select 'I12', effect.task_id, format('%s of attempt %s, the task is at %s', phase, effect.attempt, task.attempt)
from chaos.effects effect
left join agent_tasks task on task.id = effect.task_id
where task.id is null or effect.attempt not between 1 and task.attempt;

-- I13 All indexes are valid, the one on unique keys is there, and no key is there twice.
select 'I13', null::uuid, format('index %s is not valid', indexrelid::regclass)
from pg_index
where not (indisvalid and indisready) and indrelid in ('agent_tasks'::regclass, 'agent_actions_log'::regclass)
union all
select 'I13', null, 'no unique index on unique_key'
where not exists (
    select from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]
    where indrelid = 'agent_tasks'::regclass and indisunique and indnatts = 1 and attname = 'unique_key'
)
union all
select 'I13', null, format('key %s, %s times', unique_key, count(*))
from agent_tasks where unique_key is not null group by unique_key having count(*) > 1;

-- I14 The log tells the attempts of a task in their order.
select 'I14', task_id, format('the end of attempt %s, at %s, is told before that of the one before it', attempt, created_at)
from (select *, lag(created_at) over (partition by task_id order by attempt) as before from ends) told
where created_at < before;

-- I19 The queue is drained: nothing waits, nothing runs.
select 'I19', id, format('%s, due %s, attempt %s', status, scheduled_for, attempt)
from agent_tasks
where status in ('pending', 'processing');

-- I20 Nobody has left anything open: an old transaction, a prepared one, an advisory lock.
select 'I20', null::uuid, format('process %s is in a transaction since %s', pid, xact_start)
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid() and xact_start < clock_timestamp() - interval '5 s'
union all
select 'I20', null, format('prepared transaction %s', gid) from pg_prepared_xacts
union all
select 'I20', null, format('advisory lock %s %s of process %s', classid, objid, pid) from pg_locks where locktype = 'advisory';

-- I21 Nothing is counted in 32 bits, no counter has passed half of its range, and no row was ever locked by two at a time:
-- that would use up multixacts, which are counted in 32 bits.
select 'I21', null::uuid, format('sequence %s.%s of %s is at %s', schemaname, sequencename, data_type, last_value)
from pg_sequences
where data_type <> 'bigint'::regtype or last_value > max_value / 2
union all
select 'I21', null, format('%s multixacts were made', next_multixact_id::text::int8 - 1)
from pg_control_checkpoint()
where next_multixact_id::text <> '1';

-- S01 Processes end by our hand alone, or by the task that takes them down: a kill; SIGTERM in order or, before they have
-- come to follow it, at once; with the code for what would not stop only if a fault was in their way.
select 'S01', null::uuid, format('%s ended by %s at %s', process, how, at)
from chaos.exits gone
where not case how
    when 'signal_9' then exists (select from chaos.kills kill where kill.process = gone.process)
    when 'signal_6' then exists (
        select from chaos.effects effect join agent_tasks task on task.id = effect.task_id
        where effect.process = gone.process and phase = 'start' and context_json ? 'abort'
    )
    when 'signal_15' then not exists (select from chaos.effects effect where effect.process = gone.process)
        and exists (select from chaos.told_to_stop told where told.process = gone.process)
    when 'code_0' then exists (select from chaos.told_to_stop told where told.process = gone.process)
    when 'code_70' then exists (
        select from chaos.told_to_stop told join chaos.windows on begun < gone.at and over > told.at
        where told.process = gone.process and fault <> 'Terminate' and whom in ('everybody', split_part(gone.process, '.', 1))
    )
    else false
end;
