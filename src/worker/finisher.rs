//! Ends attempts in batches: the first at once, and the next one grows while the database is busy with it, and for a few
//! milliseconds more: a statement has a price of its own.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::execute::Ended;
use crate::queue::{Ending, Queue, Verdict};

/// Endings of one statement: beyond this a batch gains nothing, and the tasks that are claimed meanwhile come later.
const MAX_BATCH: usize = 500;
/// Batches that are not full begin at least this long after one another.
const PACE: Duration = Duration::from_millis(4);
/// Somebody else's lock on a row mostly lasts for a moment: that of another process's claim, which met the row while it
/// was being claimed by us, for a few milliseconds.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

type Request = (Ending, Ended);

/// Where attempts hand in their endings.
#[derive(Clone)]
pub(super) struct Finisher(mpsc::UnboundedSender<Request>);

impl Finisher {
    /// Starts on the current runtime; it ends when the last clone is gone.
    pub(super) fn start(queue: Queue) -> Self {
        // Unbounded, and bounded all the same: an attempt has one ending and is in hand until its verdict is in.
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(queue, receiver));
        Self(sender)
    }

    /// Has the ending written down, however long it takes, and the attempt settled then: an outcome is never given up.
    pub(super) fn end(&self, ending: Ending, ended: Ended) {
        if let Err(SendError((_, ended))) = self.0.send((ending, ended)) {
            ended.settle(Verdict::Refused);
        }
    }
}

async fn run(queue: Queue, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut locked = Locked::default();
    let mut next_at = Instant::now();
    loop {
        let mut batch: Vec<Request> = Vec::new();
        let open = tokio::select! {
            received = requests.recv_many(&mut batch, MAX_BATCH) => received > 0,
            () = sleep_until(locked.next_try), if !locked.requests.is_empty() => true,
        };
        if !open {
            if locked.requests.is_empty() {
                return;
            }
            sleep_until(locked.next_try).await;
        }
        if !batch.is_empty() {
            fill(&mut batch, &mut requests, next_at).await;
            next_at = Instant::now() + PACE;
        }
        batch.extend(locked.due());
        if batch.is_empty() {
            continue;
        }
        let (endings, attempts): (Vec<Ending>, Vec<Ended>) = batch.into_iter().unzip();
        let verdicts = end_at_last(&queue, &endings).await;
        let mut settled = Vec::with_capacity(verdicts.len());
        for ((ending, ended), verdict) in endings.into_iter().zip(attempts).zip(verdicts) {
            match verdict {
                Verdict::Locked => locked.add((ending, ended)),
                verdict => settled.push((ended, verdict)),
            }
        }
        // Beside the next batch, which does not wait for log lines to be written.
        tokio::spawn(async move {
            for (ended, verdict) in settled {
                ended.settle(verdict);
            }
        });
    }
}

/// Endings whose rows somebody else holds. They keep nobody else waiting, and join a later batch.
struct Locked {
    requests: Vec<Request>,
    next_try: Instant,
    wait: Duration,
}

impl Default for Locked {
    fn default() -> Self {
        Self { requests: Vec::new(), next_try: Instant::now(), wait: ASK_AGAIN.0 }
    }
}

impl Locked {
    fn add(&mut self, request: Request) {
        if self.requests.is_empty() {
            self.next_try = Instant::now() + self.wait;
        }
        self.requests.push(request);
    }

    /// Those that are to be tried again now, if it is time.
    fn due(&mut self) -> Vec<Request> {
        if self.requests.is_empty() {
            self.wait = ASK_AGAIN.0;
        } else if self.next_try <= Instant::now() {
            self.wait = (self.wait * 2).min(ASK_AGAIN.1);
            return std::mem::take(&mut self.requests);
        }
        Vec::new()
    }
}

/// Waits for more until the batch is full or the time has come.
async fn fill(batch: &mut Vec<Request>, requests: &mut mpsc::UnboundedReceiver<Request>, until: Instant) {
    while batch.len() < MAX_BATCH {
        let room = MAX_BATCH - batch.len();
        match timeout_at(until, requests.recv_many(batch, room)).await {
            Ok(more) if more > 0 => {}
            _ => return,
        }
    }
}

/// Repeats the statement until the database answers. A token that ended its attempt in a try whose reply was lost is
/// recognised: the verdict is then `Already`. Each failure halves what is asked for at once: a batch may be too much for
/// the role's `statement_timeout`.
async fn end_at_last(queue: &Queue, endings: &[Ending]) -> Vec<Verdict> {
    let mut wait = BACKOFF.0;
    let mut size = endings.len();
    let mut verdicts = Vec::with_capacity(endings.len());
    while verdicts.len() < endings.len() {
        let rest = &endings[verdicts.len()..];
        match queue.end(&rest[..size.min(rest.len())]).await {
            Ok(more) => verdicts.extend(more),
            Err(error) => {
                tracing::warn!(endings = rest.len(), %error, "endings wait for the database");
                sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
                size = (size / 2).max(1);
            }
        }
    }
    verdicts
}
