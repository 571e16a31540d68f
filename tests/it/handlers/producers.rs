//! The tasks of the customer's other services, inserted as they insert them, and done by a whole worker.

use serde_json::Value;

use super::customer::{Shape, adopt};
use crate::support::{FakeModel, Says, TestApp, TestDb};

/// A customer's database and a worker on it, with a language model.
struct House {
    db: TestDb,
    app: TestApp,
    /// Kept, or it stops answering.
    model: FakeModel,
}

impl House {
    async fn open(shape: Shape, says: &'static str) -> Self {
        Self::open_with(shape, Says::Text(says)).await
    }

    async fn open_with(shape: Shape, says: Says) -> Self {
        let db = TestDb::new().await;
        adopt(&db, shape).await;
        db.execute(include_str!("producers_people.sql")).await;
        let model = FakeModel::start([says]).await;
        let app = TestApp::start(&db, &model.vars("anthropic")).await;
        Self { db, app, model }
    }

    /// Waits until nothing that is due is left.
    async fn is_quiet(&self) {
        let sql = "select not exists (
            select from agent_tasks where status in ('pending', 'processing') and scheduled_for < now() + interval '1 h')";
        self.db.eventually("everything due is done", sql).await;
    }

    async fn json(&self, sql: &str) -> Value {
        self.db.value(&format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) as r")).await
    }
}

#[tokio::test]
async fn every_task_of_the_customers_producers_ends_as_it_should() {
    for shape in [Shape::Notify, Shape::Webhook] {
        let house =
            House::open(shape, r#"{"usefulness_score": 9, "impact_description": "It named a vendor"}"#).await;
        let intros = match shape {
            Shape::Notify => include_str!("producers_intros_notify.sql"),
            Shape::Webhook => include_str!("producers_intros_webhook.sql"),
        };
        house.db.execute(intros).await;
        house.db.execute(include_str!("producers_tasks.sql")).await;
        house.is_quiet().await;
        let sql = "select task_type, agent_type, context_json, coalesce(status || ': ' || error_log, status) as ended
            from agent_tasks
            where status <> 'completed' and scheduled_for < now() + interval '1 h'
            order by task_type";
        let not_done = house.json(sql).await;
        assert_eq!(not_done, serde_json::json!([]), "{shape:?}");

        let counts: Value = house.db.value(include_str!("producers_effects.sql")).await;
        let sent = if shape == Shape::Notify { "queued_for_send" } else { "pending" };
        assert_eq!(
            counts,
            serde_json::json!({
                "outbound": [sent],
                "solution_needed": 1,
                "verification": ["user.verification.pending"],
                "credits": 35,
                "reward_told_later": 1,
                "routed": 1,
                "mail_for_others": 1,
                "summaries": 0,
                "asked_for_later": ["intro_followup_check", "notify_expert_of_impact", "re_engagement_check"],
                "workflow": "completed",
            }),
            "{shape:?}"
        );
        if shape == Shape::Webhook {
            assert_eq!(house.db.value::<i64>("select count(*) from net.calls").await, 1, "one text was sent");
        }
        assert_eq!(house.app.stop().await, 0);
    }
}

#[tokio::test]
async fn fifty_messages_make_the_customers_trigger_ask_for_a_summary_and_it_is_written() {
    for shape in [Shape::Notify, Shape::Webhook] {
        let house = House::open(shape, "Ada wants a CRM.").await;
        let say = |count| {
            format!(
                "insert into messages (conversation_id, user_id, role, content, direction)
                select id, user_id, 'user', 'line ' || n, 'inbound'
                from conversations, generate_series(1, {count}) as n where phone_number = '+1'"
            )
        };
        house.db.execute(&say(49)).await;
        let summaries = "select count(*) from agent_tasks where task_type = 'create_conversation_summary'";
        assert_eq!(house.db.value::<i64>(summaries).await, 0);
        house.db.execute(&say(1)).await;
        house.is_quiet().await;
        let done =
            "select status, user_id, result_json -> 'messagesSummarised' as messages, cost_usd > 0 as paid
            from agent_tasks where task_type = 'create_conversation_summary'";
        assert_eq!(
            house.json(done).await,
            serde_json::json!([{ "status": "completed", "user_id": null, "messages": 50, "paid": true }])
        );
        let conversation = "select conversation_summary, messages_since_summary, last_summary_message_id is not null as marked
            from conversations where phone_number = '+1'";
        assert_eq!(
            house.json(conversation).await,
            serde_json::json!([{
                "conversation_summary": "Ada wants a CRM.", "messages_since_summary": 0, "marked": true,
            }])
        );
        let log =
            "select model_used, input_tokens, output_tokens, cost_usd::float8 as cost from agent_actions_log";
        assert_eq!(
            house.json(log).await,
            serde_json::json!([{
                "model_used": "test-model-20260101", "input_tokens": 1000, "output_tokens": 100, "cost": 0.0045,
            }])
        );
        assert_eq!(house.model.asked().len(), 1);
        assert_eq!(house.app.stop().await, 0);
    }
}

/// The customer's event-processor: it makes a task of every request for a solution, and one of every solution.
const EVENT_PROCESSOR: &str = "
    create function make_task() returns trigger language plpgsql as $$
    begin
        if new.event_type = 'user.inquiry.solution_needed' then
            insert into agent_tasks (task_type, agent_type, user_id, scheduled_for, priority, context_json, created_by)
            values (
                'research_solution', 'solution_saga', new.aggregate_id, now(), 'high',
                jsonb_build_object(
                    'requestDescription', coalesce(new.payload ->> 'requestDescription', new.payload ->> 'description'),
                    'category', new.payload ->> 'category', 'urgency', new.payload ->> 'urgency',
                    'conversationId', new.payload ->> 'conversationId', 'eventId', new.id
                ),
                'event_processor'
            );
        elsif new.event_type = 'solution.research_complete' then
            insert into agent_tasks (
                task_type, agent_type, user_id, context_id, context_type, scheduled_for, priority, context_json, created_by
            )
            select
                'solution_workflow_timeout', 'concierge', user_id, (new.payload ->> 'workflowId')::uuid,
                'solution_workflow', now(), 'high',
                jsonb_build_object(
                    'workflowId', new.payload -> 'workflowId',
                    'requestDescription', new.payload -> 'requestDescription',
                    'findings', new.payload -> 'findings', 'conversationId', id, 'eventId', new.id
                ),
                'event_processor'
            from conversations where user_id = (new.payload ->> 'userId')::uuid and status = 'active';
            update solution_workflows
            set status = 'completed', completed_at = (new.payload ->> 'completedAt')::timestamptz
            where id = (new.payload ->> 'workflowId')::uuid;
        end if;
        update events set processed = true where id = new.id;
        return new;
    end $$;
    create trigger event_processed after insert on events for each row execute function make_task();";

#[tokio::test]
async fn a_root_task_and_the_event_processor_make_one_event_between_them() {
    for shape in [Shape::Notify, Shape::Webhook] {
        let house = House::open(shape, "").await;
        house.db.execute(EVENT_PROCESSOR).await;
        house
            .db
            .execute(
                "insert into agent_tasks (task_type, agent_type, user_id, scheduled_for, priority, context_json)
                select 'research_solution', 'concierge', id, now(), 'medium', '{\"description\": \"find a CRM\"}'
                from users where phone_number = '+1'",
            )
            .await;
        house.is_quiet().await;
        let events = "select event_type, processed from events";
        assert_eq!(
            house.json(events).await,
            serde_json::json!([{ "event_type": "user.inquiry.solution_needed", "processed": true }])
        );
        let tasks = "select status, result_json -> 'reason' as reason from agent_tasks order by created_at";
        assert_eq!(
            house.json(tasks).await,
            serde_json::json!([
                { "status": "completed", "reason": null },
                { "status": "completed", "reason": "already published" },
            ])
        );
        assert_eq!(house.app.stop().await, 0);
    }
}

#[tokio::test]
async fn an_overdue_search_and_the_event_processor_deliver_what_was_found_once() {
    for shape in [Shape::Notify, Shape::Webhook] {
        let house = House::open(shape, "").await;
        house.db.execute(EVENT_PROCESSOR).await;
        house
            .db
            .execute(
                "insert into solution_workflows (id, user_id, request_description, current_step, matched_innovators)
                select '00000000-0000-4000-8000-0000000000f1', id, 'find a CRM', 'awaiting_experts', '[{\"name\": \"Acme\"}]'
                from users where phone_number = '+1';
                insert into agent_tasks (task_type, agent_type, user_id, scheduled_for, context_json)
                select 'solution_workflow_timeout', 'solution_saga', user_id, now(),
                    jsonb_build_object('workflowId', id, 'step', 'expert_responses_timeout')
                from solution_workflows",
            )
            .await;
        house.is_quiet().await;
        let told =
            "select role, direction, content::jsonb #> '{findings,matchedInnovators}' as found from messages";
        assert_eq!(
            house.json(told).await,
            serde_json::json!([{ "role": "system", "direction": "inbound", "found": [{ "name": "Acme" }] }])
        );
        let events = "select event_type, processed from events";
        assert_eq!(
            house.json(events).await,
            serde_json::json!([{ "event_type": "solution.research_complete", "processed": true }])
        );
        let workflow = "select status, current_step from solution_workflows";
        assert_eq!(
            house.json(workflow).await,
            serde_json::json!([{ "status": "completed", "current_step": "complete" }])
        );
        assert_eq!(house.app.stop().await, 0);
    }
}

#[tokio::test]
async fn a_model_that_is_busy_costs_a_task_time_and_no_retry() {
    let house = House::open_with(Shape::Webhook, Says::Later(429, "120")).await;
    house
        .db
        .execute(
            "insert into messages (conversation_id, user_id, role, content, direction)
            select id, user_id, 'user', 'hi', 'inbound' from conversations;
            insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
            select 'create_conversation_summary', 'system', now(), jsonb_build_object('conversation_id', id)
            from conversations where phone_number = '+1'",
        )
        .await;
    house.db.eventually("the task was put off", "select count(*) = 1 from agent_actions_log").await;
    let task = "select status, retry_count, scheduled_for - now() between interval '1 minute' and interval '2 minutes' as later
        from agent_tasks";
    assert_eq!(
        house.json(task).await,
        serde_json::json!([{ "status": "pending", "retry_count": 0, "later": true }])
    );
    let action: String = house.db.value("select action_type from agent_actions_log").await;
    assert_eq!(action, "snooze_create_conversation_summary");
    assert_eq!(house.app.stop().await, 0);
}
