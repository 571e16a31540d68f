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

use crate::calm::Calm;
use crate::journal::{self, Journal};
use crate::process::{Ended, Program, Slot};
use crate::proxy::Proxy;
use crate::schedule::Fault;
use crate::server::Server;

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
    /// Whoever disturbs a wire has it to itself: a process's by its number, the callers' after them.
    turns: Vec<Mutex<()>>,
    pub(crate) calm: Calm,
    kills: Journal,
    told_to_stop: Journal,
    frozen: Journal,
    exits: Journal,
    book: Plain<Book>,
}

/// What was done, and what must not have happened.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) fired: BTreeMap<Fault, usize>,
    /// Ends of processes by signal or exit code, ours and theirs.
    pub(crate) exits: BTreeMap<String, usize>,
    pub(crate) complaints: Vec<String>,
    /// How often leases and transactions were asked about while the run went on.
    pub(crate) samples: (usize, usize),
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
        let journal = |name: &str| Journal::open(&dir.join(name));
        Self {
            turns: (0..=wires.len()).map(|_| Mutex::default()).collect(),
            calm: Calm::new(wires.len(), journal("windows")),
            kills: journal("kills"),
            told_to_stop: journal("told_to_stop"),
            frozen: journal("frozen"),
            exits: journal("exits"),
            dir,
            settings,
            server,
            wires,
            callers,
            slots,
            book: Plain::default(),
        }
    }

    pub(crate) fn all_wires(&self) -> Vec<&Proxy> {
        self.wires.iter().chain([&self.callers]).collect()
    }

    /// A process's wire, or that of the callers for None, for as long as nobody else may disturb it.
    pub(crate) async fn wire(&self, process: Option<usize>) -> (&Proxy, MutexGuard<'_, ()>) {
        let number = process.unwrap_or(self.wires.len());
        let turn = self.turns[number].lock().await;
        (self.wires.get(number).unwrap_or(&self.callers), turn)
    }

    /// The same of all of them.
    pub(crate) async fn all_turns(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut turns = Vec::new();
        for turn in &self.turns {
            turns.push(turn.lock().await);
        }
        turns
    }

    pub(crate) fn sampled(&self, leases: bool, transactions: bool) {
        let samples = &mut self.book.lock().unwrap().samples;
        samples.0 += usize::from(leases);
        samples.1 += usize::from(transactions);
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

    /// Ends a process by our hand, and starts the next one. Answers whether it was that which ended it.
    pub(crate) async fn replace(&self, slot: &mut Slot, signal: Signal) -> bool {
        let by_us = self.end(slot, signal).await;
        self.start_again(slot);
        by_us
    }

    fn start_again(&self, slot: &mut Slot) {
        slot.start();
        self.calm.started(slot.number());
    }

    /// Keeps a process stopped for a while, as a machine does that is paused.
    pub(crate) async fn freeze(&self, slot: &Slot, lasts: Duration) {
        let begun = journal::now();
        slot.signal(Signal::STOP);
        sleep(lasts).await;
        let thawed = journal::now();
        slot.signal(Signal::CONT);
        self.frozen.append(&format!("{} {begun} {thawed}\n", slot.name()));
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

    /// Answers whether it ended as the signal has it.
    async fn end(&self, slot: &mut Slot, signal: Signal) -> bool {
        let name = slot.name();
        if signal == Signal::TERM {
            self.told_to_stop.append(&format!("{name} {}\n", journal::now()));
        }
        let Some(Ended { name, at, status }) = slot.end(signal, STOPS_WITHIN).await else {
            self.complain(format!("{name} did not stop within {STOPS_WITHIN:?} of {signal:?}"));
            return false;
        };
        self.note_exit(&name, status);
        if signal == Signal::KILL && status.signal() == Some(signal.as_raw()) {
            self.kills.append(&format!("{name} {at}\n"));
            return true;
        }
        signal == Signal::TERM && status.code().is_some()
    }

    fn see_to(&self, slot: &mut Slot) {
        let Some(status) = slot.exited() else { return };
        self.note_exit(&slot.name(), status);
        self.start_again(slot);
    }

    /// Whether it had a reason is asked afterwards: S01.
    fn note_exit(&self, name: &str, status: ExitStatus) {
        let how = status.code().map_or_else(
            || format!("signal_{}", status.signal().unwrap_or_default()),
            |code| format!("code_{code}"),
        );
        self.exits.append(&format!("{name} {how} {}\n", journal::now()));
        *self.book.lock().unwrap().exits.entry(how).or_default() += 1;
    }
}
