//! One process of a run, and its successors.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::journal;
use crate::worker;

/// What runs in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `task-processor serve`, as it is shipped.
    Stock,
    /// A program of the library's, whose handler leaves a trace.
    Traced,
}

/// A place for a process. Every successor has a name of its own.
pub(crate) struct Slot {
    program: Program,
    number: usize,
    generation: u32,
    dir: PathBuf,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

/// A process that was ended by our hand, and when.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) at: i64,
    pub(crate) status: ExitStatus,
}

impl Slot {
    pub(crate) fn new(program: Program, number: usize, dir: &Path, variables: Vec<(String, String)>) -> Self {
        Self { program, number, generation: 0, dir: dir.to_owned(), variables, child: None }
    }

    /// `w<number>.<generation>`; `claimed_by` begins with it, and its files have it.
    pub(crate) fn name(&self) -> String {
        format!("w{}.{}", self.number, self.generation)
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Starts the next process of this slot.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "one at a time");
        self.generation += 1;
        let name = self.name();
        let log = File::create(self.dir.join(format!("{name}.log"))).expect("a log");
        let mut command = match self.program {
            Program::Stock => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_task-processor"));
                command.arg("serve").env_clear();
                command
            }
            Program::Traced => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.args(worker::ARGUMENTS).env_clear();
                command.env(worker::VARIABLE, self.dir.join(format!("{name}.effects")));
                command
            }
        };
        let child = command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("HOSTNAME", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("a process"));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it was started");
        // Gone already: whoever looks after the slots will see.
        let _ = kill_process(Pid::from_child(child), signal);
    }

    /// Sends the signal and waits for the end. None if it is still there after `patience`: then it is killed.
    pub(crate) async fn end(&mut self, signal: Signal, patience: Duration) -> Option<Ended> {
        let (name, at, began) = (self.name(), journal::now(), Instant::now());
        self.signal(signal);
        while began.elapsed() < patience {
            if let Some(status) = self.exited() {
                return Some(Ended { name, at, status });
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.signal(Signal::KILL);
        while self.exited().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("our child")?;
        self.child = None;
        Some(status)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
