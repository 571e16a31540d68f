//! The server of `dev` and of these tests: kept data stays, everything else goes, however its owner ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options, PostgresError};
use task_processor::config::env_vars;

use crate::support::{connect, eventually};

const OWNER: &str = "embedded_postgres::an_owner_for_the_other_tests";
/// Tells [`OWNER`] that it is one, and where its data is to be; empty for a throw-away server.
const OWNERS_DATA: &str = "TEST_OWNERS_DATA";

/// A directory that goes with this.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("tp-test-{}", uuid::Uuid::new_v4().simple());
        Self(std::env::temp_dir().join(name))
    }

    /// Data to be kept, in a directory that only initdb's user may enter.
    fn options(&self) -> Options {
        Options { durable: false, ..Options::kept(self.0.join("postgres")) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("a directory of ours");
    }
}

fn process(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).expect("a process id")
}

fn process_of(server: &EmbeddedPostgres) -> Pid {
    process(server.pid().expect("a running server"))
}

fn guardian_of(server: Pid) -> Pid {
    let number = server.as_raw_nonzero().to_string();
    let ps = Command::new("ps").args(["-o", "ppid=", "-p", &number]).output().expect("ps");
    let parent = String::from_utf8_lossy(&ps.stdout).trim().parse().expect("a process id");
    Pid::from_raw(parent).expect("a parent")
}

fn lives(process: Pid) -> bool {
    test_kill_process(process).is_ok()
}

async fn gone(server: Pid, run_dir: &Path) {
    eventually("the server is gone", async || !lives(server)).await;
    eventually("its directory is gone", async || !run_dir.exists()).await;
}

#[tokio::test]
async fn kept_data_survives_a_restart_and_is_forgotten_on_demand_unless_it_is_in_use() {
    let directory = Directory::new();
    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    let sockets = server.socket_dir().to_owned();
    let sql = "create table kept (word text); insert into kept values ('still here')";
    connect(&server.url("postgres")).await.batch_execute(sql).await.unwrap();
    server.stop().await.unwrap();
    assert!(!sockets.exists());

    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    let rows =
        connect(&server.url("postgres")).await.query_typed("select word from kept", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "still here");
    let fresh = || Options { fresh: true, ..directory.options() };
    let refused = EmbeddedPostgres::start(fresh()).await;
    assert!(matches!(refused, Err(PostgresError::InUse(_))), "{:?}", refused.err());
    let count = async |server: &EmbeddedPostgres| {
        let client = connect(&server.url("postgres")).await;
        let sql = "select count(*) from pg_class where relname = 'kept'";
        client.query_typed(sql, &[]).await.expect("a count")[0].get::<_, i64>(0)
    };
    assert_eq!(count(&server).await, 1, "nothing was forgotten");
    server.stop().await.unwrap();

    let server = EmbeddedPostgres::start(fresh()).await.unwrap();
    assert_eq!(count(&server).await, 0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_durable_server_syncs_and_a_throw_away_one_does_not() {
    for (durable, fsync) in [(true, "on"), (false, "off")] {
        let options = Options { durable, ..Options::throw_away() };
        let server = EmbeddedPostgres::start(options).await.unwrap();
        let client = connect(&server.url("postgres")).await;
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            let rows = client.query_typed(&format!("show {name}"), &[]).await.unwrap();
            assert_eq!(rows[0].get::<_, &str>(0), fsync, "{name}");
        }
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_server() {
    let server = EmbeddedPostgres::start(Options::throw_away()).await.unwrap();
    let (process, directory) = (process_of(&server), server.data_dir().to_owned());
    assert!(lives(process));
    drop(server);
    gone(process, &directory).await;
}

#[tokio::test]
async fn the_log_tells_why_a_server_does_not_start() {
    let mut options = Options::throw_away();
    options.settings.push(("no_such_setting".to_owned(), "1".to_owned()));
    let error = EmbeddedPostgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_a_dropped_one_is_waited_for() {
    let directory = Directory::new();
    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    let second = EmbeddedPostgres::start(directory.options()).await;
    assert!(matches!(second, Err(PostgresError::InUse(_))), "{second:?}");
    drop(server);
    let third = EmbeddedPostgres::start(directory.options()).await.unwrap();
    third.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_outlived_its_guardian_makes_room_for_the_next() {
    let directory = Directory::new();
    let orphan = EmbeddedPostgres::start(directory.options()).await.unwrap();
    let process = process_of(&orphan);
    let left_over = orphan.socket_dir().to_owned();
    kill_process(guardian_of(process), Signal::KILL).unwrap();
    drop(orphan);
    assert!(lives(process));

    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    assert_ne!(process_of(&server), process);
    eventually("the old server is gone", async || !lives(process)).await;
    server.stop().await.unwrap();
    std::fs::remove_dir_all(left_over).unwrap();
}

#[tokio::test]
async fn a_process_that_has_come_to_the_leftover_number_is_left_alone() {
    let directory = Directory::new();
    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    let pid_file = server.data_dir().join("cluster/postmaster.pid");
    let leftover = std::fs::read_to_string(&pid_file).unwrap();
    let user = server.user();
    server.stop().await.unwrap();

    let mut sleep = Command::new("sleep");
    if let Some(user) = user {
        // One that the server's user might end.
        sleep.uid(user.uid).gid(user.gid);
    }
    let mut stranger = sleep.arg("600").spawn().unwrap();
    let ours = leftover.lines().next().unwrap();
    std::fs::write(&pid_file, leftover.replacen(ours, &stranger.id().to_string(), 1)).unwrap();
    let server = EmbeddedPostgres::start(directory.options()).await.unwrap();
    assert_eq!(stranger.try_wait().unwrap(), None, "still running");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    server.stop().await.unwrap();
}

/// A process of its own that starts a server, tells where its directories are, and waits for its end.
#[tokio::test]
#[ignore = "other tests run it as a process of its own"]
async fn an_owner_for_the_other_tests() {
    let Some(data) = env_vars().remove(OWNERS_DATA) else { return };
    let options = match data.as_str() {
        "" => Options::throw_away(),
        directory => Options { durable: false, ..Options::kept(directory) },
    };
    let server = EmbeddedPostgres::start(options).await.unwrap();
    let (data, sockets) = (server.data_dir().display(), server.socket_dir().display());
    println!("\nserver\t{}\t{data}\t{sockets}", server.pid().unwrap());
    // Until it is ended, or forgotten by a test that failed.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Starts that process, in a process group of its own as a shell would: its server, data and socket directories.
fn owner(data: &Path) -> (Child, Pid, PathBuf, PathBuf) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([OWNER, "--exact", "--ignored", "--nocapture"])
        .env(OWNERS_DATA, data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("an owner");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("server\t")).expect("a server");
    let mut fields = line.split('\t').skip(1);
    let mut next = || fields.next().expect("a process and two directories");
    (child, process(next().parse().expect("a number")), next().into(), next().into())
}

#[tokio::test]
async fn nothing_is_left_of_an_owner_that_is_killed() {
    let (mut child, process, _, sockets) = owner(Path::new(""));
    assert!(lives(process));
    child.kill().unwrap();
    child.wait().unwrap();
    gone(process, &sockets).await;
}

#[tokio::test]
async fn ctrl_c_reaches_the_owner_and_lets_its_server_shut_down_cleanly() {
    let directory = Directory::new();
    let options = directory.options();
    let (mut child, process, data, sockets) = owner(options.data_dir.as_deref().unwrap());
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::INT).unwrap();
    child.wait().unwrap();
    gone(process, &sockets).await;
    let log = std::fs::read_to_string(data.join("server.log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
}
