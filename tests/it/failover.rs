//! A primary that is killed for good, and its standby in its place.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::Config;
use task_processor::db::{Database, Lane};
use task_processor::queue::NewTask;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{Gate, Proxy, TestApp, add_tasks, connect, eventually, missing, scratch, value};

/// A primary, its streaming standby, and a wire that leads to who is primary.
struct Pair {
    primary: EmbeddedPostgres,
    standby: EmbeddedPostgres,
    wire: Proxy,
}

impl Pair {
    async fn new(name: &str) -> Self {
        let home = scratch(name).await;
        let primary = start(&home.join("primary")).await;
        let standby = home.join("standby");
        back_up(&primary, &standby).await;
        let standby = start(&standby).await;
        let wire = Proxy::to(primary.socket_dir()).await;
        let pair = Self { primary, standby, wire };
        let streams = "select count(*) = 1 from pg_stat_replication where state = 'streaming'";
        eventually("it streams", async || value(&pair.primary, streams).await).await;
        pair
    }

    /// From now on nothing is acknowledged that the standby does not have.
    async fn synchronise(&self) {
        for sql in ["alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"] {
            connect(&self.primary.url("postgres")).await.batch_execute(sql).await.expect("set");
        }
        let synchronous = "select count(*) = 1 from pg_stat_replication where sync_state = 'sync'";
        eventually("it is synchronous", async || value(&self.primary, synchronous).await).await;
    }

    /// Freezes what sends to the standby, which has everything that there was.
    async fn lag(&self) -> Pid {
        let caught_up = "select replay_lsn = pg_current_wal_lsn() from pg_stat_replication";
        eventually("it has caught up", async || value(&self.primary, caught_up).await).await;
        let sender = value(&self.primary, "select pid from pg_stat_replication").await;
        let sender = Pid::from_raw(sender).expect("an id");
        kill_process(sender, Signal::STOP).expect("it runs");
        sender
    }

    /// Connections of ours by a URL that names both servers.
    fn whoever_takes_writes(&self) -> Database {
        let (first, second) = (self.standby.socket_dir().display(), self.primary.socket_dir().display());
        let url = format!(
            "postgres:///postgres?host={first}&host={second}&user=postgres&target_session_attrs=read-write"
        );
        let config = Config::from_vars([("DATABASE_URL", url)]).expect("valid");
        Database::new(&config.database).expect("a usable URL")
    }

    fn kill_primary(&self) {
        let pid = self.primary.pid().expect("it runs");
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(pid, Signal::KILL).expect("it runs");
    }

    /// Has the standby take the primary's place; nobody is led to it yet.
    async fn promote(&self) {
        assert!(value::<bool>(&self.standby, "select pg_promote()").await);
    }
}

async fn start(home: &Path) -> EmbeddedPostgres {
    let mut options = Options::kept(home);
    // The machine does not crash, and the test is quicker.
    options.settings = vec![("fsync".to_owned(), "off".to_owned())];
    EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Makes the data directory of a standby.
async fn back_up(primary: &EmbeddedPostgres, home: &Path) {
    std::fs::create_dir_all(home).expect("a directory");
    let programs: String = value(primary, "select setting from pg_config where name = 'BINDIR'").await;
    let mut command = Command::new(Path::new(&programs).join("pg_basebackup"));
    let source = format!("host={} port=5432 user=postgres", primary.socket_dir().display());
    command.args([
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
        "--dbname",
        &source,
        "--pgdata",
    ]);
    if let Some(user) = primary.user() {
        chown(home, Some(user.uid), Some(user.gid)).expect("ours to give");
        command.uid(user.uid).gid(user.gid);
    }
    let output = command.arg(home.join("cluster")).current_dir("/").output().expect("pg_basebackup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One of the writers.
fn add_echoes(app: &Arc<TestApp>, over: &Arc<AtomicBool>) -> JoinHandle<Vec<Uuid>> {
    add_tasks(app, over, NewTask::new("echo", json!({ "sleep_ms": 20 })), |_| {})
}

const DONE: &str = "select bool_and(status = 'completed') from agent_tasks";
/// How many leases somebody let run out.
const RECOVERED: &str = "select count(*) from agent_actions_log where action_type = 'recover_echo'";
/// Every task has exactly one ending that was accepted.
const ENDED_ONCE: &str =
    "select count(*) = count(distinct context_id) and count(*) = (select count(*) from agent_tasks)
    from agent_actions_log where action_type in ('process_echo', 'process_gate')";

#[tokio::test]
async fn a_failover_to_a_synchronous_standby_loses_nothing_that_was_acknowledged() {
    let pair = Pair::new("sync").await;
    let app = Arc::new(TestApp::behind(&pair.wire, &[("LEASE_SECONDS", "30")]).await);
    pair.synchronise().await;
    let whoever = pair.whoever_takes_writes();
    let is_standby = async || {
        let asked = "select pg_is_in_recovery()";
        let rows = whoever.query(Lane::Shared, Duration::from_secs(5), asked, &[]).await;
        rows.ok().map(|rows| rows[0].get::<_, bool>(0))
    };
    assert_eq!(is_standby().await, Some(false), "the standby stands first in the URL");
    let over = Arc::new(AtomicBool::new(false));
    let writers = [add_echoes(&app, &over), add_echoes(&app, &over)];
    eventually("it works", async || app.worker.counts().succeeded > 50).await;
    let ended = app.worker.counts().succeeded;
    pair.wire.cut();
    pair.kill_primary();
    pair.promote().await;
    pair.wire.lead_to(pair.standby.socket_dir());
    eventually("a URL with both leads to the new primary", async || is_standby().await == Some(false)).await;
    let kept: i64 = value(&pair.standby, "select count(*) from agent_tasks where status = 'completed'").await;
    assert!(kept >= i64::try_from(ended).expect("few"), "{kept} endings of {ended} are left");
    eventually("it works again", async || app.worker.counts().succeeded > ended + 50).await;
    over.store(true, Ordering::SeqCst);
    for writer in writers {
        let acknowledged = writer.await.expect("no panic");
        assert!(acknowledged.len() > 50, "{} tasks were added", acknowledged.len());
        assert_eq!(missing(&pair.standby, &acknowledged).await, 0, "of {}", acknowledged.len());
    }
    eventually("all are done", async || value(&pair.standby, DONE).await).await;
    assert!(value::<bool>(&pair.standby, ENDED_ONCE).await);
    assert_eq!(value::<i64>(&pair.standby, RECOVERED).await, 0, "nothing counts as a crash");
    Arc::into_inner(app).expect("ours alone").stop().await;
}

#[tokio::test]
async fn a_failover_to_an_asynchronous_standby_loses_what_it_lagged_behind_and_corrupts_nothing() {
    let pair = Pair::new("async").await;
    let gate = Gate::closed();
    let short = [("LEASE_SECONDS", "3")];
    let app = Arc::new(TestApp::behind_with(&pair.wire, &short, gate.among_all()).await);
    let (before, after) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let early = add_echoes(&app, &before);
    eventually("it works", async || app.worker.counts().succeeded > 20).await;
    // What begins before the lag ends in it.
    for _ in 0..5 {
        app.queue().enqueue_one(Gate::task()).await.expect("a task");
    }
    let long = |status: &str| {
        format!("select count(*) = 5 from agent_tasks where task_type = 'gate' and status = '{status}'")
    };
    eventually("they run", async || value(&pair.primary, &long("processing")).await).await;
    before.store(true, Ordering::SeqCst);
    let early = early.await.expect("no panic");
    let sender = pair.lag().await;
    let late = add_echoes(&app, &after);
    // Once in the lag, and once again.
    gate.open(10);
    let ended = app.worker.counts().succeeded;
    eventually("it works", async || app.worker.counts().succeeded > ended + 50).await;
    eventually("the long ones have ended", async || value(&pair.primary, &long("completed")).await).await;
    let ended = app.worker.counts().succeeded;
    pair.wire.cut();
    after.store(true, Ordering::SeqCst);
    let late = late.await.expect("no panic");
    // In this order: the primary would begin anew if it saw its sender die.
    pair.kill_primary();
    kill_process(sender, Signal::KILL).expect("it runs");
    pair.promote().await;
    assert!(value::<bool>(&pair.standby, &long("processing")).await, "their endings are undone");
    pair.wire.lead_to(pair.standby.socket_dir());
    let kept: i64 = value(&pair.standby, "select count(*) from agent_tasks where status = 'completed'").await;
    let gone = usize::try_from(missing(&pair.standby, &late).await).expect("a count");
    println!(
        "lost with the primary: {} of {} tasks acknowledged in the lag, {} of {ended} endings",
        gone,
        late.len(),
        i64::try_from(ended).expect("few") - kept
    );
    assert_eq!(gone, late.len(), "all of the lag, and nothing else");
    assert_eq!(missing(&pair.standby, &early).await, 0);
    let new = app.add(json!({})).await;
    let done = format!("select status = 'completed' from agent_tasks where id = '{new}'");
    eventually("it works again", async || value(&pair.standby, &done).await).await;
    eventually("all are done", async || value(&pair.standby, DONE).await).await;
    assert!(value::<bool>(&pair.standby, ENDED_ONCE).await);
    // After their leases, or given back as nobody's if a claim was under way when the wire was cut.
    let again = "select count(*) from agent_tasks where task_type = 'gate' and attempt > 1";
    assert_eq!(value::<i64>(&pair.standby, again).await, 5, "they ran again");
    Arc::into_inner(app).expect("ours alone").stop().await;
}
