//! The last stage of the image, assembled from this machine's files and run as Cloud Run would run it.

use std::io::Write;
use std::process::Stdio;

use crate::support::{TestDb, test_variable};

/// The script's code for: bubblewrap cannot be used here.
const UNAVAILABLE: i32 = 69;
/// Of the release binary, in megabytes. With debug information it may be as large as it likes.
const AT_MOST_MB: &str = "25";

/// `TEST_ROOTFS_BINARY` names the release binary; it has to be small, and then there is no excuse.
#[tokio::test]
async fn the_image_serves_read_only_as_nobody_and_stops_within_nine_seconds() {
    let db = TestDb::new().await;
    // In there it is nobody, and may not enter the folder of the socket.
    let (_proxy, url) = db.over_tcp().await;
    let release = test_variable("TEST_ROOTFS_BINARY");
    let limit = release.as_ref().map(|_| ["--at-most-mb", AT_MOST_MB]);
    let binary = release.as_deref().unwrap_or(env!("CARGO_BIN_EXE_task-processor"));
    let output = tokio::process::Command::new("deploy/rootfs.sh")
        .args(limit.into_iter().flatten())
        .arg(binary)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("DATABASE_URL", &url)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the script");
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNAVAILABLE) && release.is_none() {
        // Not by `eprintln!`, which a test that passes keeps to itself.
        std::io::stderr().write_all(format!("\n!!! {told}\n").as_bytes()).expect("standard error");
        return;
    }
    assert!(output.status.success(), "{told}");
    let released = "select status = 'pending' and attempt = 1 and retry_count = 0 from agent_tasks";
    assert!(db.value::<bool>(released).await, "the task it was stopped in is somebody else's now: {told}");
}
