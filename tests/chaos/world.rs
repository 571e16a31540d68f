//! What a run takes place in: a server, processes behind wires of their own, and a book of what was done to them.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex as Plain;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use crate::journal::Journal;
use crate::process::{Ended, Program, Slot};
use crate::proxy::Proxy;
use crate::schedule::Fault;
use crate::server::Server;

/// Exit codes of a process that was told to stop: in order, or because something would not.
const DOCUMENTED: [i32; 2] = [0, task_processor::shutdown::EXIT_STUCK];
/// The grace period that the processes are given.
const GRACE: Duration = Duration::from_secs(1);
/// Grace, the time to give tasks back, and a machine that is busy with other things.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

/// What the processes are told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) concurrency: usize,
    pub(crate) poll: Duration,
    pub(crate) programs: Vec<Program>,
}

impl Settings {
    /// Short leases: much happens in little time.
    pub(crate) fn quick() -> Self {
        Self {
            lease: Duration::from_secs(3),
            concurrency: 10,
            poll: Duration::from_secs(2),
            programs: vec![Program::Traced, Program::Traced, Program::Stock],
        }
    }

    fn variables(&self, wire: &Proxy) -> Vec<(String, String)> {
        let seconds = |time: Duration| time.as_secs().to_string();
        [
            ("DATABASE_URL", wire.url("postgres")),
            ("PORT", "0".into()),
            ("LEASE_SECONDS", seconds(self.lease)),
            ("CONCURRENCY", self.concurrency.to_string()),
            ("POLLING_INTERVAL_MS", self.poll.as_millis().to_string()),
            ("RETRY_BASE_SECONDS", "1".into()),
            ("SHUTDOWN_GRACE_SECONDS", seconds(GRACE)),
            ("LOG_FORMAT", "json".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) server: Server,
    pub(crate) wires: Vec<Proxy>,
    /// The wire of who adds tasks.
    pub(crate) callers: Proxy,
    pub(crate) slots: Vec<Mutex<Slot>>,
    kills: Journal,
    frozen: Journal,
    book: Plain<Book>,
}

/// What was done, and what must not have happened.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) fired: BTreeMap<Fault, usize>,
    /// Ends of processes by signal or exit code, ours and theirs.
    pub(crate) exits: BTreeMap<String, usize>,
    pub(crate) complaints: Vec<String>,
}

impl World {
    /// A server and the processes, in a new directory of that name.
    pub(crate) async fn start(name: &str, settings: Settings) -> Self {
        let place = format!("chaos-{name}-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(place);
        std::fs::create_dir_all(&dir).expect("a directory");
        let server = Server::start(&dir).await;
        let (mut wires, mut slots) = (Vec::new(), Vec::new());
        for (number, program) in settings.programs.iter().enumerate() {
            let wire = server.wire().await;
            let mut slot = Slot::new(*program, number, &dir, settings.variables(&wire));
            slot.start();
            slots.push(Mutex::new(slot));
            wires.push(wire);
        }
        let callers = server.wire().await;
        let (kills, frozen) = (Journal::open(&dir.join("kills")), Journal::open(&dir.join("frozen")));
        Self { dir, settings, server, wires, callers, slots, kills, frozen, book: Plain::default() }
    }

    pub(crate) fn all_wires(&self) -> Vec<&Proxy> {
        self.wires.iter().chain([&self.callers]).collect()
    }

    pub(crate) fn fired(&self, fault: Fault) {
        *self.book.lock().unwrap().fired.entry(fault).or_default() += 1;
    }

    pub(crate) fn complain(&self, complaint: String) {
        self.book.lock().unwrap().complaints.push(complaint);
    }

    pub(crate) fn book(&self) -> Book {
        self.book.lock().unwrap().clone()
    }

    /// A process that is there, for as long as nobody else may touch it.
    pub(crate) async fn slot(&self, number: usize) -> MutexGuard<'_, Slot> {
        let mut slot = self.slots[number].lock().await;
        self.see_to(&mut slot);
        slot
    }

    /// Ends a process by our hand, and starts the next one.
    pub(crate) async fn replace(&self, slot: &mut Slot, signal: Signal) {
        self.end(slot, signal).await;
        slot.start();
    }

    /// Keeps a process stopped for a while, as a machine does that is paused.
    pub(crate) async fn freeze(&self, slot: &Slot, lasts: Duration) {
        self.frozen.append(&format!("{}\n", slot.name()));
        slot.signal(Signal::STOP);
        sleep(lasts).await;
        slot.signal(Signal::CONT);
    }

    /// Looks after the processes: one that ends by itself is reported, and gets a successor.
    pub(crate) async fn watch(&self) -> ! {
        loop {
            for slot in &self.slots {
                if let Ok(mut slot) = slot.try_lock() {
                    self.see_to(&mut slot);
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all processes in order.
    pub(crate) async fn stop(&self) {
        for slot in &self.slots {
            self.end(&mut *slot.lock().await, Signal::TERM).await;
        }
    }

    /// Leaves nothing behind.
    pub(crate) async fn forget(&self) {
        self.server.forget().await;
        std::fs::remove_dir_all(&self.dir).expect("ours");
    }

    async fn end(&self, slot: &mut Slot, signal: Signal) {
        let name = slot.name();
        match slot.end(signal, STOPS_WITHIN).await {
            Some(Ended { name, at, status }) => {
                self.count_exit(status);
                let asked = status.signal() == Some(signal.as_raw());
                if asked {
                    self.kills.append(&format!("{name} {at}\n"));
                }
                if !asked && !status.code().is_some_and(|code| DOCUMENTED.contains(&code)) {
                    self.by_itself(&name, status);
                }
            }
            None => self.complain(format!("{name} did not stop within {STOPS_WITHIN:?} of {signal:?}")),
        }
    }

    fn see_to(&self, slot: &mut Slot) {
        let Some(status) = slot.exited() else { return };
        self.count_exit(status);
        self.by_itself(&slot.name(), status);
        slot.start();
    }

    /// The only reason for a process to end by itself is the task that takes it down.
    fn by_itself(&self, name: &str, status: ExitStatus) {
        if status.signal() != Some(Signal::ABORT.as_raw()) {
            self.complain(format!("{name} ended by itself: {status}"));
        }
    }

    fn count_exit(&self, status: ExitStatus) {
        let how = status.code().map_or_else(
            || format!("signal {}", status.signal().unwrap_or_default()),
            |code| format!("code {code}"),
        );
        *self.book.lock().unwrap().exits.entry(how).or_default() += 1;
    }
}
