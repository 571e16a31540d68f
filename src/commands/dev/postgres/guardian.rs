//! A child process that takes a server away when we are gone, even if we are killed without a word.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use super::User;
use crate::config::env_vars;

const SCRIPT: &str = include_str!("guardian.sh");

/// What a guardian looks after.
#[derive(Debug)]
pub struct Ward<'a> {
    /// Who runs it, if not we.
    pub user: Option<User>,
    /// A directory that is made for it and removed after it.
    pub run_dir: &'a Path,
    /// The signal that stops the server, without `SIG`. SIGINT, SIGQUIT and SIGTERM reach only a server that asks for
    /// them.
    pub stop_signal: &'a str,
    /// Shell text that starts the server, with `$run` the directory and `$@` the arguments; `guardian.sh` says how.
    pub start: &'a str,
    /// The arguments of that text.
    pub arguments: &'a [OsString],
    /// A file whose lock is held until the server is gone.
    pub lock: Option<File>,
}

/// The child. When this is dropped, or our process ends, it stops the server and removes the directory.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
}

impl Guardian {
    /// Starts the guardian, which starts the server. What it has to say about that comes through the pipe, which is
    /// closed when the server has ended or could not be started.
    pub fn spawn(ward: Ward<'_>) -> io::Result<(Self, ChildStdout)> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "guardian"])
            .arg(ward.run_dir)
            .args([ward.stop_signal, ward.start])
            .args(ward.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(ward.lock.map_or_else(Stdio::null, Stdio::from))
            // Ours may be a place where the user may not be, or one that is to be unmounted.
            .current_dir("/")
            .env("LC_ALL", "C")
            // The terminal's Ctrl-C goes to its whole process group.
            .process_group(0);
        // PGDATA, PGPORT, PGOPTIONS and the like are meant for other servers.
        for name in env_vars().into_keys().filter(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some(user) = ward.user {
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn()?;
        let words = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((Self { child }, words))
    }

    /// Waits until the server and the directory are gone.
    pub async fn stop(&mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None => sleep(Duration::from_millis(10)).await,
            }
        };
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the guardian ended with {status}")))
        }
    }
}
