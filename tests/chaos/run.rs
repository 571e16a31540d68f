//! One run: load and faults side by side, then peace, then judgement.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use crate::callers;
use crate::calm;
use crate::faults;
use crate::load::Volume;
use crate::random::Random;
use crate::schedule::Planned;
use crate::verdict::{self, Figures};
use crate::world::{Book, Settings, World};

/// What still waits or runs is stuck when no attempt has begun or ended anywhere for so long. A task that must run alone
/// may be reserved for a minute by a process that is dead.
const STUCK_AFTER: Duration = Duration::from_secs(100);
/// Words of the server that must not be in its log.
const UNHEARD_OF: [&str; 2] = ["deadlock detected", "could not serialize"];

/// All that makes a run.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) volume: Volume,
    pub(crate) schedule: Vec<Planned>,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) figures: Figures,
    pub(crate) book: Book,
    /// Acknowledged to the callers.
    pub(crate) acknowledged: usize,
    /// What is wrong: violated invariants, and what the supervisor saw.
    pub(crate) wrong: Vec<String>,
}

/// Makes the run. Panics if anything is wrong, and then leaves the run's directory as it is.
pub(crate) async fn run(plan: Plan) -> Report {
    let schedule: String = plan.schedule.iter().fold(String::new(), |mut all, planned| {
        let _ = write!(all, " {planned}");
        all
    });
    println!("{}: seed {}, task-processor {}", plan.name, plan.seed, env!("CARGO_PKG_VERSION"));
    println!("schedule:{schedule}");
    let world = Arc::new(World::start(plan.name, plan.settings.clone()).await);
    let version = world.server.value::<String>("select version()").await.unwrap_or_default();
    println!("on {version}, in {}", world.dir.display());
    let random = Random::new(plan.seed);
    let acknowledged = until_drained(&world, plan.volume, &random, &plan.schedule).await;
    world.stop().await;
    let report = judge(&world, acknowledged, &plan.schedule).await;
    report.print();
    assert!(report.wrong.is_empty(), "{:#?}\nall of it is in {}", report.wrong, world.dir.display());
    world.forget().await;
    report
}

/// Adds the tasks while the schedule is carried out, and waits until all are done. Answers how many were acknowledged.
pub(crate) async fn until_drained(
    world: &Arc<World>,
    volume: Volume,
    random: &Random,
    schedule: &[Planned],
) -> usize {
    let began = Instant::now();
    let work = async {
        let (acknowledged, ()) =
            tokio::join!(callers::add_all(world, volume, random), faults::carry_out(world, schedule));
        println!("peace after {:.1} s", began.elapsed().as_secs_f64());
        drain(world).await;
        println!("drained after {:.1} s", began.elapsed().as_secs_f64());
        acknowledged
    };
    tokio::select! {
        acknowledged = work => acknowledged,
        never = world.watch() => never,
        never = calm::look_on(world) => never,
    }
}

/// Waits until nothing waits and nothing runs, as long as there is any progress.
async fn drain(world: &World) {
    let sql = "select count(*) filter (where status in ('pending', 'processing')), sum(attempt)
        + count(*) filter (where status = 'processing') from agent_tasks";
    let of = |rows: Vec<Row>| Some((rows[0].try_get::<_, i64>(0).ok()?, rows[0].try_get::<_, i64>(1).ok()?));
    let (mut progress, mut since) = (-1, Instant::now());
    while since.elapsed() < STUCK_AFTER {
        match world.server.rows(sql).await.and_then(of) {
            Some((0, _)) => return,
            Some((_, now)) if now != progress => (progress, since) = (now, Instant::now()),
            _ => {}
        }
        sleep(Duration::from_millis(100)).await;
    }
    world.complain("the queue is stuck".to_owned());
}

async fn judge(world: &World, acknowledged: usize, schedule: &[Planned]) -> Report {
    let client = world.server.client().await.expect("a server that is left alone");
    verdict::load_journal(&client, &world.dir, world.settings.lease).await;
    let mut wrong = verdict::violations(&client).await;
    let figures = Figures::of(&client).await;
    drop(client);
    let book = world.book();
    wrong.extend(book.complaints.iter().cloned());
    let never = schedule.iter().map(|planned| planned.fault).filter(|fault| !book.fired.contains_key(fault));
    wrong.extend(never.map(|fault| format!("{fault:?} never hit anything")));
    let (completed, reported) = (figures.count("completed"), figures.count("reported"));
    if reported * 10 < completed * 9 {
        wrong.push(format!("{reported} of {completed} completions were reported: too few to compare"));
    }
    let log = world.server.stop().await;
    wrong.extend(
        UNHEARD_OF
            .iter()
            .filter(|words| log.contains(**words))
            .map(|words| format!("the server's log says: {words}")),
    );
    Report { figures, book, acknowledged, wrong }
}

impl Report {
    fn print(&self) {
        let fired: Vec<String> =
            self.book.fired.iter().map(|(fault, times)| format!("{fault:?} {times}")).collect();
        println!("faults: {}", fired.join(", "));
        println!("exits: {:?}", self.book.exits);
        println!("samples of leases and of transactions: {:?}", self.book.samples);
        println!("figures: {}", self.figures);
        println!("violations: {}", self.wrong.len());
    }
}
