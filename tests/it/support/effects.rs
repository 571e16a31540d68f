//! A handler whose acts are counted outside the database, and the place where they are counted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use task_processor::services::effect_key;
use task_processor::{Handler, Outcome, Services, Task};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// One act, as the outside world saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) attempt: i32,
    /// The same for every attempt at the task.
    pub(crate) key: Uuid,
    pub(crate) at: Instant,
}

/// The outside world: it hears of acts, and forgets none.
pub(crate) struct Effects {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Effect>>>,
}

impl Effects {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hear(stream, sink.clone()));
            }
        });
        Self { address, seen }
    }

    /// The variable that tells [`Act`] of it, for a process of its own.
    pub(crate) fn variable(&self) -> (&'static str, String) {
        ("EFFECTS", self.address.to_string())
    }

    /// The handler that acts here.
    pub(crate) fn handler(&self) -> Act {
        Act { world: self.address }
    }

    pub(crate) fn seen(&self) -> Vec<Effect> {
        self.seen.lock().unwrap().clone()
    }

    /// How many acts of the attempts with this number there were.
    pub(crate) fn of_attempt(&self, attempt: i32) -> usize {
        self.seen().iter().filter(|effect| effect.attempt == attempt).count()
    }
}

async fn hear(stream: TcpStream, seen: Arc<Mutex<Vec<Effect>>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line).await {
        // Nobody acted who did not finish the sentence.
        let Some((attempt, key)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else {
            return;
        };
        let (attempt, key) = (attempt.parse().expect("a number"), key.parse().expect("an id"));
        seen.lock().unwrap().push(Effect { attempt, key, at: Instant::now() });
        line.clear();
        if stream.write_all(b".").await.is_err() {
            return;
        }
    }
}

/// Acts so many times, with a pause after each.
pub(crate) struct Act {
    pub(crate) world: SocketAddr,
}

/// The input that makes [`Act`] act so many times, with pauses of so many milliseconds.
pub(crate) fn acting(times: u32, pause_ms: u64) -> Value {
    json!({ "times": times, "pause_ms": pause_ms })
}

#[derive(Deserialize)]
pub(crate) struct ActInput {
    times: u32,
    pause_ms: u64,
}

impl Handler for Act {
    const TASK_TYPE: &'static str = "act";
    type Input = ActInput;

    async fn run(&self, input: ActInput, task: Task, _services: Services) -> Outcome {
        match self.act(&input, &task).await {
            Ok(()) => Outcome::complete(json!({})),
            Err(error) => Outcome::retry(error),
        }
    }
}

impl Act {
    /// Over a connection that is there: an act is one step, which nothing but its own await comes before.
    async fn act(&self, input: &ActInput, task: &Task) -> std::io::Result<()> {
        let mut world = TcpStream::connect(self.world).await?;
        for time in 0..input.times {
            let key = effect_key(task.id, &time.to_string());
            world.write_all(format!("{} {key}\n", task.attempt).as_bytes()).await?;
            world.read_u8().await?;
            sleep(Duration::from_millis(input.pause_ms)).await;
        }
        Ok(())
    }
}
