//! How long it takes until things go on, at default settings where that matters. They take minutes, so they are asked for.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::journal;
use crate::process::Program;
use crate::server::Stop;
use crate::verdict::{self, Figures};
use crate::world::{Settings, World};

/// As `serve` has them if nothing is said.
fn defaults(processes: usize) -> Settings {
    Settings {
        lease: Duration::from_secs(30),
        concurrency: 10,
        poll: Duration::from_secs(30),
        programs: vec![Program::Traced; processes],
    }
}

async fn add(world: &World, tasks: usize, context: &str) {
    let sql = format!(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'chaos', 'measure', '{context}' from generate_series(1, {tasks})"
    );
    world.server.client().await.expect("a server").batch_execute(&sql).await.expect("added");
}

async fn until(world: &World, sql: &str, patience: Duration) {
    let began = Instant::now();
    while world.server.value::<bool>(sql).await != Some(true) {
        assert!(began.elapsed() < patience, "still not true: {sql}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[ignore = "minutes: leases of 30 s, waited for several times"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_a_killed_process_start_elsewhere_within_forty_seconds() {
    for round in 1..=3 {
        let (rescued, p50, max) = rescue_after_kills().await;
        println!("{round}: from kill -9 to the next start, {rescued} tasks: p50 {p50:.1} s, max {max:.1} s");
        assert!(p50 <= 30.0 && max <= 40.0);
    }
}

/// Kills half of eight processes under long tasks: how many were taken over, the median wait and the longest, in seconds.
async fn rescue_after_kills() -> (u64, f64, f64) {
    let world = World::start("rescue", defaults(8)).await;
    // Who rescues has been in touch with the database for the time of a lease.
    sleep(Duration::from_secs(32)).await;
    add(&world, 40, r#"{"sleep_ms": 3600000}"#).await;
    let running = "select count(*) = 40 from agent_tasks where status = 'processing'";
    until(&world, running, Duration::from_secs(20)).await;
    for victim in 0..4 {
        // At different moments between two renewals.
        sleep(Duration::from_millis(7_300)).await;
        world.replace(&mut *world.slot(victim).await, Signal::KILL).await;
    }
    sleep(Duration::from_secs(40)).await;
    let client = world.server.client().await.expect("a server");
    verdict::load_journal(&client, &world.dir, world.settings.lease).await;
    let violations = verdict::violations(&client).await;
    assert!(violations.iter().all(|line| line.starts_with("I19")), "{violations:?}");
    let figures = Figures::of(&client).await;
    let seconds = |name| figures.seconds(name).expect("some were taken over");
    let answer = (figures.count("rescued"), seconds("rescue_p50"), seconds("rescue_max"));
    assert_eq!(world.server.value::<bool>(running).await, Some(true), "all run again");
    drop(client);
    for slot in 0..world.slots.len() {
        world.slot(slot).await.signal(Signal::KILL);
    }
    world.forget().await;
    answer
}

/// The ends of handlers so far, in microseconds since 1970, in order.
fn finishes(world: &World) -> Vec<i64> {
    let entries =
        std::fs::read_dir(&world.dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "effects"));
    let finished = |effect: &journal::Effect| effect.phase == "finish";
    let mut times: Vec<i64> =
        files.flat_map(|file| journal::effects(&file)).filter(finished).map(|effect| effect.at).collect();
    times.sort_unstable();
    times
}

#[ignore = "two minutes of steady work"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_is_back_within_five_seconds_of_a_database_that_accepts_connections() {
    const SECOND: i64 = 1_000_000;
    let world = World::start("recovery", defaults(2)).await;
    add(&world, 100_000, r#"{"sleep_ms": 100}"#).await;
    until(
        &world,
        "select count(*) > 500 from agent_tasks where status = 'completed'",
        Duration::from_mins(1),
    )
    .await;
    for how in [Stop::Fast, Stop::Immediate, Stop::Fast, Stop::Immediate] {
        sleep(Duration::from_secs(6)).await;
        let stopped = journal::now();
        world.server.restart(how, &world.all_wires()).await;
        let accepts = journal::now();
        sleep(Duration::from_secs(8)).await;
        let times = finishes(&world);
        let between = |from: i64, to: i64| times.iter().filter(|time| (from..to).contains(time)).count();
        let usual = between(stopped - 5 * SECOND, stopped) / 5;
        let recovered = (0..80)
            .map(|step| accepts + step * SECOND / 10)
            .find(|from| between(*from, from + SECOND) * 10 >= usual * 9);
        let seconds = recovered.map(|moment| Duration::from_micros((moment - accepts).unsigned_abs()));
        println!(
            "{how:?}: away for {:?}, {usual} tasks/s before, nine tenths of that again after {seconds:?}",
            Duration::from_micros((accepts - stopped).unsigned_abs())
        );
        assert!(seconds.is_some_and(|time| time <= Duration::from_secs(5)), "{seconds:?}");
    }
    for slot in 0..world.slots.len() {
        world.slot(slot).await.signal(Signal::KILL);
    }
    world.forget().await;
}

#[ignore = "a hundred thousand tasks, twenty processes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_processes_that_are_all_killed_and_started_at_once_drain_a_large_backlog() {
    let settings = Settings { programs: vec![Program::Traced; 20], ..Settings::quick() };
    let world = World::start("stampede", settings).await;
    add(&world, 100_000, r#"{"fate": "completed"}"#).await;
    until(
        &world,
        "select count(*) > 5000 from agent_tasks where status = 'completed'",
        Duration::from_mins(2),
    )
    .await;
    for slot in 0..world.slots.len() {
        world.slot(slot).await.signal(Signal::KILL);
    }
    let began = Instant::now();
    for slot in 0..world.slots.len() {
        // A killed one is seen as one that ended by our hand, and replaced.
        world.replace(&mut *world.slots[slot].lock().await, Signal::KILL).await;
    }
    until(&world, "select bool_and(status = 'completed') from agent_tasks", Duration::from_mins(10)).await;
    let took = began.elapsed();
    world.stop().await;
    let client = world.server.client().await.expect("a server");
    verdict::load_journal(&client, &world.dir, world.settings.lease).await;
    assert_eq!(verdict::violations(&client).await, Vec::<String>::new());
    assert_eq!(world.book().complaints, Vec::<String>::new());
    println!("drained in {took:?}: {}", Figures::of(&client).await);
    drop(client);
    world.forget().await;
}
