//! A disk that is full, for the database.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::queue::{NewTask, QueueError};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::{Proxy, TestApp, add_tasks, eventually, missing, try_value, value};

/// A small file system of our own, unmounted with this.
struct Disk(PathBuf);

impl Disk {
    /// None where nothing may be mounted.
    fn mount() -> Option<Self> {
        let place = std::env::temp_dir().join(format!("tp-disk-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&place).expect("a directory");
        let disk = Self(place);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m,mode=755", "none"])
            .arg(&disk.0)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(disk),
            _ => None,
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("it is full");
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).expect("ours");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

async fn start(disk: &Disk) -> EmbeddedPostgres {
    let started = EmbeddedPostgres::start(Options::kept(disk.0.join("postgres"))).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

#[ignore = "mounts a file system, which needs root"]
#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::mount() else {
        eprintln!("!!! NOT CHECKED: a full disk. No file system may be mounted here.");
        return;
    };
    let mut server = start(&disk).await;
    let wire = Proxy::to(server.socket_dir()).await;
    let app = Arc::new(TestApp::behind(&wire, &[]).await);
    let (over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let count = refused.clone();
    let task = NewTask::new("echo", json!({ "filling": "x".repeat(4_000) }));
    let adding = add_tasks(&app, &over, task, move |error| {
        let transient = matches!(error, QueueError::Database(error) if error.is_transient());
        assert!(transient, "{error}");
        count.fetch_add(1, Ordering::SeqCst);
    });
    eventually("it works", async || app.worker.counts().succeeded > 100).await;
    disk.fill();
    let broken = async || {
        try_value::<i32>(&server, "select 1").await.is_none() || app.get("/health/ready").await.0 == 503
    };
    // A server that finds room in its log and its files goes on for a while.
    let _ = timeout(Duration::from_secs(20), async {
        while !broken().await {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(app.get("/health").await.0, 200, "no restart of the process would help");
    // Before anything that we do to it ourselves.
    let refused = refused.load(Ordering::SeqCst);
    assert!(refused > 0, "the disk was never full");
    std::fs::remove_file(disk.filler()).expect("ours");
    // What it does about a log that it cannot write is to end; somebody starts it again.
    if try_value::<i32>(&server, "select 1").await.is_none() {
        let _ = server.stop().await;
        server = start(&disk).await;
        wire.cut();
        wire.lead_to(server.socket_dir());
    }
    let ended = app.worker.counts().succeeded;
    eventually("it works again", async || app.worker.counts().succeeded > ended + 20).await;
    over.store(true, Ordering::SeqCst);
    let acknowledged = adding.await.expect("no panic");
    let done = "select bool_and(status = 'completed') from agent_tasks";
    eventually("all are done", async || try_value(&server, done).await == Some(true)).await;
    assert_eq!(missing(&server, &acknowledged).await, 0, "of {}", acknowledged.len());
    println!("{} tasks acknowledged, {refused} calls refused", acknowledged.len());
    let recovered = "select count(*) from agent_actions_log where action_type = 'recover_echo'";
    assert_eq!(value::<i64>(&server, recovered).await, 0, "nothing counts as a crash");
    Arc::into_inner(app).expect("ours alone").stop().await;
    server.stop().await.expect("it stops");
}
