//! A database that stops, crashes, stays away or answers into the void.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::Config;
use task_processor::handlers;
use tokio_postgres::types::FromSqlOwned;

use crate::support::{Proxy, TestApp, eventually, scratch, try_value, value};

/// A server of its own, which the test may stop, behind a wire that it may cut.
struct Outage {
    data: std::path::PathBuf,
    server: Option<EmbeddedPostgres>,
    proxy: Proxy,
}

impl Outage {
    async fn new(name: &str) -> Self {
        let data = scratch(name).await;
        let server = start(&data).await;
        let proxy = Proxy::to(server.socket_dir()).await;
        Self { data, server: Some(server), proxy }
    }

    async fn app(&self) -> TestApp {
        self.app_with(&[("LEASE_SECONDS", "3")]).await
    }

    async fn app_with(&self, extra: &[(&str, &str)]) -> TestApp {
        TestApp::behind(&self.proxy, extra).await
    }

    /// One value, straight from the server.
    async fn value<T: FromSqlOwned>(&self, sql: &str) -> T {
        value(self.server.as_ref().expect("it runs"), sql).await
    }

    /// The same, unless the server is not there.
    async fn try_value<T: FromSqlOwned>(&self, sql: &str) -> Option<T> {
        try_value(self.server.as_ref().expect("it runs"), sql).await
    }

    /// Has the app claim what it will not hear of. From then on the wire is mute.
    async fn lose_the_reply_to_a_claim(&self, app: &TestApp) {
        // The reply to be lost is the next claim's, not that of a look that is under way.
        let asleep = "select bool_and(state = 'idle' and state_change < now() - interval '500 ms')
            from pg_stat_activity where application_name = 'task-processor'";
        eventually("the worker is asleep", async || self.value(asleep).await).await;
        self.proxy.mute();
        self.value::<i64>(ADD).await;
        app.worker.wake();
        let claimed = "select count(*) > 0 from agent_tasks where status = 'processing'";
        eventually("some are claimed", async || self.value(claimed).await).await;
    }

    /// Ends its connections, and lets new ones through.
    fn mend_the_wire(&self) {
        self.proxy.cut();
        self.proxy.lead_to(self.server.as_ref().expect("it runs").socket_dir());
    }

    async fn stop(&mut self) {
        self.server.take().expect("it runs").stop().await.expect("it stops");
        self.proxy.cut();
    }

    /// Ends the server as a power cut would: without a checkpoint, and without a word to anybody.
    async fn crash(&mut self) {
        let server = self.server.take().expect("it runs");
        let pid = i32::try_from(server.pid().expect("the server's id"))
            .ok()
            .and_then(Pid::from_raw)
            .expect("an id");
        kill_process(pid, Signal::QUIT).expect("it runs");
        self.proxy.cut();
        // There is nothing left to stop, and that may be said.
        let _ = server.stop().await;
    }

    async fn start(&mut self) {
        let server = start(&self.data).await;
        self.proxy.lead_to(server.socket_dir());
        self.server = Some(server);
    }
}

async fn start(data: &std::path::Path) -> EmbeddedPostgres {
    let mut options = Options::kept(data);
    options.durable = true;
    EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_process_that_only_answers_requests_notices_by_itself_that_the_database_is_back() {
    let mut outage = Outage::new("request-mode").await;
    let app = outage.app_with(&[("POLL_MODE", "request")]).await;
    outage.stop().await;
    eventually("it is not ready", async || app.get("/health/ready").await.0 == 503).await;
    outage.start().await;
    app.ready().await;
    assert_eq!(app.get("/health").await.1["status"], "healthy");
    app.stop().await;
}

const ADD: &str = "with added as (
    insert into agent_tasks (task_type, agent_type, context_json)
    select 'echo', 'test', '{\"sleep_ms\": 200}' from generate_series(1, 100) returning 1
) select count(*) from added";
const UNHARMED: &str =
    "select bool_and(status = 'completed' and crash_count = 0 and retry_count = 0) from agent_tasks";

#[tokio::test]
async fn a_database_that_is_restarted_or_crashes_under_load_costs_nothing_but_time() {
    let mut outage = Outage::new("restart").await;
    let app = outage.app().await;
    for crash in [false, true] {
        assert_eq!(outage.value::<i64>(ADD).await, 100);
        app.worker.wake();
        eventually("some run", async || app.worker.in_hand() > 0).await;
        match crash {
            true => outage.crash().await,
            false => outage.stop().await,
        }
        eventually("health tells", async || app.get("/health").await.1["status"] == "degraded").await;
        assert_eq!(app.get("/health").await.0, 200, "no restart of the process would help");
        assert_eq!(app.get("/health/ready").await.0, 503);
        outage.start().await;
        eventually("all are done", async || outage.value(UNHARMED).await).await;
        eventually("health tells", async || app.get("/health").await.1["status"] == "healthy").await;
    }
    // A backend that dies takes all the others along.
    assert_eq!(outage.value::<i64>(ADD).await, 100);
    app.worker.wake();
    eventually("some run", async || app.worker.in_hand() > 0).await;
    let backend = "select min(pid) from pg_stat_activity where application_name = 'task-processor'";
    kill_process(Pid::from_raw(outage.value(backend).await).expect("an id"), Signal::KILL).expect("it runs");
    eventually("all are done", async || outage.try_value(UNHARMED).await == Some(true)).await;
    let log = "select count(*) from agent_actions_log where action_type = 'recover_echo'";
    assert_eq!(outage.value::<i64>(log).await, 0, "nothing counts as a crash");
    assert_eq!(outage.value::<i64>("select count(*) from agent_tasks").await, 300, "what was committed");
    app.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away_for_longer_than_the_leases_counts_as_no_crash() {
    let outage = Outage::new("away").await;
    let app = outage.app().await;
    assert_eq!(outage.value::<i64>(ADD).await, 100);
    app.worker.wake();
    eventually("some run", async || app.worker.in_hand() > 0).await;
    outage.proxy.cut();
    // Three leases long. What ran is cut short when its lease ends: nobody may act without one.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(app.get("/health").await.1["status"], "degraded");
    outage.proxy.lead_to(outage.server.as_ref().expect("it runs").socket_dir());
    eventually("all are done", async || outage.value(UNHARMED).await).await;
    let log = "select count(*) from agent_actions_log where action_type = 'recover_echo'";
    assert_eq!(outage.value::<i64>(log).await, 0, "nothing counts as a crash");
    app.stop().await;
}

#[tokio::test]
async fn a_process_that_starts_without_a_database_waits_for_it() {
    let outage = Outage::new("late").await;
    outage.proxy.cut();
    let vars = [("DATABASE_URL", outage.proxy.url("postgres")), ("PORT", "0".to_owned())];
    let mut config = Config::from_vars(vars).expect("valid");
    config.http.host = [127, 0, 0, 1].into();
    let app = TestApp::start_with(config, handlers::all()).await;
    assert_eq!(app.get("/health").await.1["status"], "degraded");
    outage.proxy.lead_to(outage.server.as_ref().expect("it runs").socket_dir());
    app.ready().await;
    app.stop().await;
}

#[tokio::test]
async fn a_claim_whose_reply_is_lost_is_given_back_and_costs_nobody_a_crash() {
    let outage = Outage::new("claim").await;
    let app = outage.app_with(&[("LEASE_SECONDS", "30")]).await;
    outage.lose_the_reply_to_a_claim(&app).await;
    assert_eq!(app.worker.in_hand(), 0, "and we do not know of it");
    outage.mend_the_wire();
    eventually("all are done", async || outage.value(UNHARMED).await).await;
    let log = "select count(*) filter (where action_type = 'recover_echo') = 0
        and count(*) filter (where action_type = 'release_echo' and error = 'the reply to the claim was lost') > 0
        and count(*) filter (where action_type = 'process_echo') = 100 from agent_actions_log";
    assert!(outage.value::<bool>(log).await);
    app.stop().await;
}

#[tokio::test]
async fn with_short_leases_too_what_a_lost_claim_brought_is_given_back_before_they_are_over() {
    let outage = Outage::new("short").await;
    let app = outage.app_with(&[("LEASE_SECONDS", "4")]).await;
    outage.lose_the_reply_to_a_claim(&app).await;
    outage.mend_the_wire();
    let given_back = "select count(*) filter (where action_type = 'release_echo') > 0
        and count(*) filter (where action_type = 'recover_echo') = 0 from agent_actions_log";
    eventually("it is given back", async || outage.value(given_back).await).await;
    app.stop().await;
}

#[tokio::test]
async fn an_ending_whose_reply_is_lost_is_recognised_and_logged_once() {
    let outage = Outage::new("ending").await;
    let app = outage.app_with(&[("LEASE_SECONDS", "30"), ("CONCURRENCY", "100")]).await;
    // The connection for endings is there before the wire is muted.
    outage.value::<i64>(&ADD.replace("200", "0").replace("100", "1")).await;
    app.worker.wake();
    eventually("one has ended", async || app.worker.counts().succeeded == 1).await;
    outage.value::<i64>(&ADD.replace("200", "1500")).await;
    app.worker.wake();
    eventually("all run", async || app.worker.in_hand() == 100).await;
    outage.proxy.mute();
    let ended = "select count(*) > 1 from agent_tasks where status = 'completed'";
    eventually("some have ended", async || outage.value(ended).await).await;
    assert_eq!(app.worker.in_hand(), 100, "and we do not know of it");
    outage.mend_the_wire();
    eventually("we know", async || app.worker.in_hand() == 0).await;
    assert_eq!(app.worker.counts().succeeded, 101);
    let log = "select count(*) = 101 and count(distinct context_id) = 101 from agent_actions_log";
    assert!(outage.value::<bool>(log).await);
    app.stop().await;
}

#[tokio::test]
async fn a_process_that_leaves_after_a_claim_whose_reply_was_lost_gives_its_tasks_back() {
    let outage = Outage::new("leaving").await;
    let app = outage.app_with(&[("LEASE_SECONDS", "60")]).await;
    outage.lose_the_reply_to_a_claim(&app).await;
    outage.proxy.cut();
    app.shutdown.begin();
    outage.proxy.lead_to(outage.server.as_ref().expect("it runs").socket_dir());
    app.stop().await;
    let free = "select bool_and(status = 'pending' and crash_count = 0) from agent_tasks";
    assert!(outage.value::<bool>(free).await);
}

#[tokio::test]
async fn who_reaches_a_database_first_that_was_away_gives_the_others_time_to_come_back() {
    let outage = Outage::new("grace").await;
    let socket = outage.server.as_ref().expect("it runs").socket_dir().to_owned();
    let wire = Proxy::to(&socket).await;
    let late = TestApp::behind(&wire, &[("LEASE_SECONDS", "8")]).await;
    outage.value::<i64>(&ADD.replace("200", "60000").replace("100", "5")).await;
    late.worker.wake();
    eventually("it works", async || late.worker.in_hand() == 5).await;
    let early = outage.app_with(&[("LEASE_SECONDS", "8")]).await;
    wire.cut();
    outage.proxy.cut();
    let expired = "select bool_and(lease_expires_at < now()) from agent_tasks";
    eventually("all leases have expired", async || outage.value(expired).await).await;
    outage.proxy.lead_to(&socket);
    eventually("one is back", async || early.get("/health").await.1["status"] == "healthy").await;
    // Longer than the time between two of its looks for expired leases.
    tokio::time::sleep(Duration::from_secs(3)).await;
    wire.lead_to(&socket);
    let log = "select count(*) filter (where action_type = 'release_echo') = 5
        and count(*) filter (where action_type = 'recover_echo') = 0 from agent_actions_log";
    eventually("its owner gave the tasks back", async || outage.value(log).await).await;
    early.stop().await;
    late.stop().await;
}
