//! Ends attempts in batches: the first at once, and the next one grows while the database is busy with it, and for a few
//! milliseconds more: a statement has a price of its own.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, sleep, timeout_at};

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
    let mut batch: Vec<Request> = Vec::new();
    let mut ask_again = ASK_AGAIN.0;
    let mut next_at = Instant::now();
    loop {
        if batch.is_empty() {
            ask_again = ASK_AGAIN.0;
            if requests.recv_many(&mut batch, MAX_BATCH).await == 0 {
                return;
            }
            fill(&mut batch, &mut requests, next_at).await;
            next_at = Instant::now() + PACE;
        } else {
            // Left over are those whose rows somebody else holds. They keep nobody else waiting.
            sleep(ask_again).await;
            ask_again = (ask_again * 2).min(ASK_AGAIN.1);
            while let Ok(request) = requests.try_recv() {
                batch.push(request);
            }
        }
        let (endings, attempts): (Vec<Ending>, Vec<Ended>) = batch.drain(..).unzip();
        let verdicts = end_at_last(&queue, &endings).await;
        let mut settled = Vec::with_capacity(verdicts.len());
        for ((ending, ended), verdict) in endings.into_iter().zip(attempts).zip(verdicts) {
            match verdict {
                Verdict::Locked => batch.push((ending, ended)),
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
