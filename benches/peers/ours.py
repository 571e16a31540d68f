"""The entries for `PEERS` of the comparison's bench.py. ADAPTER names the program built from adapter.rs."""
import os

OURS = dict(
    cmd=[os.environ.get("ADAPTER", "ADAPTER-is-not-set")],
    # Each half has its partial index; neither rows that have ended nor the million of the future are read.
    unfinished="""
        select (select count(*) from agent_tasks where status = 'processing')
            + (select count(*) from agent_tasks
               where status = 'pending' and crash_count < 2 and task_type = 'noop'
                   and (case priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end) = 2
                   and scheduled_for < now() + interval '1 hour')""",
    mark="select 0",
    table="agent_tasks",
    # What a million attempts leave: the ended rows, and a row of the log for each.
    finish="""
        update agent_tasks set status = 'completed', attempt = 1, lease_token = gen_random_uuid(),
            result_json = '{"success": true}', scheduled_for = now(), last_attempted_at = now(), completed_at = now();
        insert into agent_actions_log (agent_type, action_type, context_id, context_type, latency_ms, input_data,
            output_data, attempt, lease_token)
        select 'task_processor', 'process_noop', id, 'agent_task', 0, context_json, result_json, attempt, lease_token
        from agent_tasks""",
    n=400_000,
    n1=20_000,
)
OURS = {f"ours-{config}": dict(OURS, config=config) for config in ("default", "tuned")}
