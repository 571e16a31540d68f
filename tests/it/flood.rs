//! Hundreds of connections that do nothing, and garbage by the megabyte: what they cost those who have something to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::support::{Instance, TestDb, eventually, test_variable};

/// What comes to the doors, all at once.
#[derive(Clone, Copy)]
struct Flood {
    /// Connections whose head never ends.
    slow: usize,
    /// Connections that say nothing.
    idle: usize,
    /// Garbage, in bytes a second.
    rate: u32,
    lasts: Duration,
}

/// What was measured meanwhile.
#[derive(Debug)]
struct Measured {
    tasks_a_second: f64,
    garbage: u64,
    took: Duration,
    health: Vec<Duration>,
}

impl Measured {
    fn p99(&self) -> Duration {
        let mut sorted = self.health.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * 99 / 100]
    }
}

/// Keeps so many connections open, each of which says `piece` once a second, and opens anew what is closed.
fn hold(attack: &mut JoinSet<()>, to: SocketAddr, connections: usize, piece: &'static [u8]) {
    for _ in 0..connections {
        attack.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(to).await {
                    let mut buffer = [0; 1024];
                    while !matches!(
                        timeout(Duration::from_secs(1), stream.read(&mut buffer)).await,
                        Ok(Ok(0) | Err(_))
                    ) {
                        if stream.write_all(piece).await.is_err() {
                            break;
                        }
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
}

/// Sends garbage at a rate: bytes without sense, requests whose heads do not end, and bodies that nobody has asked for.
fn pour(attack: &mut JoinSet<()>, to: SocketAddr, rate: u32, poured: &Arc<AtomicU64>) {
    const PIECE: u16 = 16 * 1024;
    let noise = [0xa5, 0x17, 0xee, 0x02].repeat(usize::from(PIECE) / 4);
    let head = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; PIECE.into()]].concat();
    let body =
        [b"POST /process-task HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n".to_vec(), noise.clone()].concat();
    for piece in [noise, head, body] {
        let poured = poured.clone();
        attack.spawn(async move {
            let every = Duration::from_secs_f64(3.0 * f64::from(PIECE) / f64::from(rate));
            let mut beat = interval(every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut stream = None;
            loop {
                beat.tick().await;
                if stream.is_none() {
                    stream = TcpStream::connect(to).await.ok();
                }
                let Some(open) = &mut stream else { continue };
                poured.fetch_add(piece.len() as u64, Ordering::Relaxed);
                // What it has to say is not waited for, but for its end.
                if open.write_all(&piece).await.is_err() || open.try_read(&mut [0; 4096]).is_ok() {
                    stream = None;
                }
            }
        });
    }
}

/// Takes all that is said and says nothing.
async fn sink() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
            });
        }
    });
    (address, tasks)
}

/// Lets the flood go to the service, or to a sink beside it, while it works off a backlog.
async fn measure(flood: Flood, at_the_doors: bool, backlog: u32) -> Measured {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[]).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    let doors = SocketAddr::from(([127, 0, 0, 1], instance.port()));
    let (sink, _sink) = sink().await;
    let target = if at_the_doors { doors } else { sink };
    let poured = Arc::new(AtomicU64::new(0));
    let mut attack = JoinSet::new();
    hold(&mut attack, target, flood.slow, b"X-A: b\r\n");
    hold(&mut attack, target, flood.idle, b"");
    pour(&mut attack, target, flood.rate, &poured);
    sleep(flood.lasts / 10).await;

    db.execute(&format!(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'x', '{{}}' from generate_series(1, {backlog})"
    ))
    .await;
    let (began, poured_before) = (Instant::now(), poured.load(Ordering::Relaxed));
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
    let (mut health, mut first, mut drained) = (Vec::new(), None, None);
    while drained.is_none() || began.elapsed() < flood.lasts {
        let asked = Instant::now();
        let response = client.get(instance.url("/health")).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let body: Value = response.json().await.expect("JSON");
        health.push(asked.elapsed());
        let done = body["stats"]["tasksProcessed"].as_u64().expect("a number");
        let (since, before) = *first.get_or_insert((asked, done));
        if done == u64::from(backlog) && drained.is_none() {
            #[expect(clippy::cast_precision_loss, reason = "tasks are few")]
            let rate = (done - before) as f64 / since.elapsed().as_secs_f64();
            drained = Some(rate);
        }
        sleep(Duration::from_millis(20)).await;
    }
    let (garbage, took) = (poured.load(Ordering::Relaxed) - poured_before, began.elapsed());
    drop(attack);
    Measured { tasks_a_second: drained.expect("all is done"), garbage, took, health }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_nothing_and_garbage_keep_neither_probes_nor_tasks_waiting() {
    let flood = Flood { slow: 50, idle: 50, rate: 3_000_000, lasts: Duration::from_secs(2) };
    let measured = measure(flood, true, 200).await;
    assert!(measured.garbage > 1_000_000 && measured.health.len() > 10, "{measured:?}");
    // Beside all other tests, on two cores; who waits for a head waits for ten seconds.
    assert!(measured.p99() < Duration::from_secs(3), "{:?}", measured.p99());
}

/// `cargo test --release --test it -- --ignored flood`, on a machine that does nothing else. `FLOOD_SECONDS` is how long
/// each of the two halves lasts.
#[ignore = "measures: it needs the machine for itself and a release build"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_the_doors_costs_the_queue_at_most_a_fifth_more_than_a_flood_beside_it() {
    let seconds = test_variable("FLOOD_SECONDS").map_or(30, |text| text.parse().expect("seconds"));
    let flood = Flood { slow: 500, idle: 500, rate: 10_000_000, lasts: Duration::from_secs(seconds) };
    let backlog = u32::try_from(seconds * 25_000).expect("a number of tasks");
    let beside = measure(flood, false, backlog).await;
    let at_the_doors = measure(flood, true, backlog).await;
    let kept = at_the_doors.tasks_a_second / beside.tasks_a_second;
    for (what, measured) in [("beside", &beside), ("at the doors", &at_the_doors)] {
        let Measured { tasks_a_second, garbage, took, health } = measured;
        #[expect(clippy::cast_precision_loss, reason = "megabytes are few")]
        let rate = *garbage as f64 / 1e6 / took.as_secs_f64();
        println!(
            "{what}: {tasks_a_second:.0} tasks/s, {rate:.1} MB/s of garbage for {took:?}, /health p99 {:?} of {}",
            measured.p99(),
            health.len()
        );
        assert!(rate > 9.0, "too little was poured: {rate:.1} MB/s");
    }
    println!("kept {:.1} %", kept * 100.0);
    assert!(at_the_doors.p99() < Duration::from_millis(100), "{:?}", at_the_doors.p99());
    assert!(kept >= 0.8, "only {:.1} % of the throughput is left", kept * 100.0);
}
