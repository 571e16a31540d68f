//! Who is being disturbed, who is left alone and since when, and what must hold meanwhile: asked while a run goes on.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::journal::{self, Journal};
use crate::schedule::Fault;
use crate::world::World;

/// How often it is asked. What two questions in a row find is wrong: a lock of a moment is not.
const EVERY: Duration = Duration::from_millis(400);
/// I05 and I20 of invariants.sql, with `{tick}` in milliseconds.
const WHILE_IT_RUNS: &str = "
    select 'I05', format('while it ran: the lease of %s ended at %s', id, lease_expires_at)
    from agent_tasks
    where status = 'processing' and lease_expires_at < clock_timestamp() - 2 * interval '{tick} ms'
    union all
    select 'I20', format('while it ran: process %s was in a transaction since %s', pid, xact_start)
    from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid() and xact_start < clock_timestamp() - interval '5 s'
    union all
    select 'I20', format('while it ran: prepared transaction %s', gid) from pg_prepared_xacts
    union all
    select 'I20', format('while it ran: advisory lock %s %s of process %s', classid, objid, pid)
    from pg_locks where locktype = 'advisory'";

/// The processes of a run.
pub(crate) struct Calm {
    processes: Mutex<Vec<Process>>,
    windows: Journal,
}

#[derive(Clone, Copy, PartialEq)]
struct Process {
    /// Faults that are being done to it.
    faults: usize,
    /// When the last of them was over, or when it was started.
    since: Instant,
}

/// The time of a fault, until it is dropped.
pub(crate) struct Window<'a> {
    calm: &'a Calm,
    fault: Fault,
    /// None: everybody.
    whom: Option<usize>,
    begun: i64,
}

impl Calm {
    pub(crate) fn new(processes: usize, windows: Journal) -> Self {
        let process = Process { faults: 0, since: Instant::now() };
        Self { processes: Mutex::new(vec![process; processes]), windows }
    }

    /// A fault begins.
    pub(crate) fn disturb(&self, fault: Fault, whom: Option<usize>) -> Window<'_> {
        self.each(whom, |process| process.faults += 1);
        Window { calm: self, fault, whom, begun: journal::now() }
    }

    /// A process has begun anew.
    pub(crate) fn started(&self, number: usize) {
        self.each(Some(number), |_| {});
    }

    fn each(&self, whom: Option<usize>, change: impl Fn(&mut Process)) {
        let mut processes = self.processes.lock().unwrap();
        for (_, process) in
            processes.iter_mut().enumerate().filter(|(number, _)| whom.is_none_or(|it| it == *number))
        {
            change(process);
            process.since = Instant::now();
        }
    }

    fn processes(&self) -> Vec<Process> {
        self.processes.lock().unwrap().clone()
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.calm.each(self.whom, |process| process.faults -= 1);
        let whom = self.whom.map_or_else(|| "everybody".to_owned(), |number| format!("w{number}"));
        let (fault, begun, over) = (self.fault, self.begun, journal::now());
        self.calm.windows.append(&format!("{fault:?} {whom} {begun} {over}\n"));
    }
}

/// Asks during a run, and complains. Transactions are asked about while no fault is being done to anybody, leases
/// while there is anybody who was left alone for so long that it must have rescued them: it does so once it has
/// been in touch with the database for the time of a lease.
pub(crate) async fn look_on(world: &World) -> ! {
    let lease = world.settings.lease;
    let (mut before, mut reported) = (BTreeSet::new(), BTreeSet::new());
    loop {
        sleep(EVERY).await;
        let processes = world.calm.processes();
        let undisturbed = processes.iter().all(|process| process.faults == 0);
        let rescued =
            processes.iter().any(|process| process.faults == 0 && process.since.elapsed() > 2 * lease);
        let Some(found) = sample(world).await else {
            before.clear();
            continue;
        };
        // Something was done meanwhile: whatever was seen may come from that.
        if processes != world.calm.processes() {
            before.clear();
            continue;
        }
        world.sampled(rescued, undisturbed);
        let counts = |line: &String| if line.starts_with("I05") { rescued } else { undisturbed };
        let found: BTreeSet<String> = found.into_iter().filter(counts).collect();
        for line in found.intersection(&before) {
            if reported.insert(line.clone()) {
                world.complain(line.clone());
            }
        }
        before = found;
    }
}

async fn sample(world: &World) -> Option<Vec<String>> {
    let tick = (world.settings.lease / 3).as_millis().to_string();
    let rows = world.server.rows(&WHILE_IT_RUNS.replace("{tick}", &tick)).await?;
    Some(rows.iter().map(|row| format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}
