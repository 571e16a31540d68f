//! Ends attempts in batches: the first at once, and the next one grows while the database is busy with it, and for some
//! time more: a statement has a price of its own.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::execute::Ended;
use crate::queue::{Ending, Queue, Verdict};

/// Endings of one statement: beyond this a batch gains nothing, and the tasks that are claimed meanwhile come later.
const MAX_BATCH: usize = 500;
/// Batches that are not full begin at least this long after one another.
const PACE: Duration = Duration::from_millis(10);
/// And so many times as long as the last one took, but at most this long, after its end: a database that many share
/// does more with fewer and larger batches.
const REST: (u32, Duration) = (2, Duration::from_millis(50));
/// Somebody else's lock on a row mostly lasts for a moment: that of another process's claim, which met the row while it
/// was being claimed by us, for a few milliseconds.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// An ending that was too slow is tried again, alone, after so many times as long as that took, but at most this long:
/// the others wait during the try.
const SLOW_REST: (u32, Duration) = (5, Duration::from_secs(10));
/// What one statement carries of results and errors, in bytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// An answer that came this quickly would not have come too late for twice as much.
const QUICK: Duration = Duration::from_secs(1);

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
    let (mut locked, mut slow) = (Locked::default(), Slow::default());
    let mut next_at = Instant::now();
    loop {
        let mut batch: Vec<Request> = Vec::new();
        let again = locked.next_try().into_iter().chain(slow.next_try()).min();
        let open = tokio::select! {
            received = requests.recv_many(&mut batch, MAX_BATCH) => received > 0,
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => true,
        };
        if !open {
            match again {
                None => return,
                Some(moment) => sleep_until(moment).await,
            }
        }
        if !batch.is_empty() {
            fill(&mut batch, &mut requests, next_at).await;
            next_at = Instant::now() + PACE;
        }
        batch.extend(locked.due());
        if !batch.is_empty() {
            let began = Instant::now();
            finish(&queue, batch, &mut locked, &mut slow).await;
            next_at = next_at.max(Instant::now() + (began.elapsed() * REST.0).min(REST.1));
        }
        // The first of them tells whether the others are worth a try.
        while let Some(request) = slow.due() {
            finish(&queue, vec![request], &mut locked, &mut slow).await;
        }
    }
}

/// Ends attempts, but for those that somebody's lock is in the way of.
async fn finish(queue: &Queue, batch: Vec<Request>, locked: &mut Locked, slow: &mut Slow) {
    let (endings, attempts): (Vec<Ending>, Vec<Ended>) = batch.into_iter().unzip();
    let began = Instant::now();
    let verdicts = end_at_last(queue, &endings).await;
    let took = began.elapsed();
    let mut settled = Vec::with_capacity(verdicts.len());
    for ((ending, ended), verdict) in endings.into_iter().zip(attempts).zip(verdicts) {
        match verdict {
            None => slow.add((ending, ended), took),
            Some(Verdict::Locked) => locked.add((ending, ended)),
            Some(verdict) => settled.push((ended, verdict)),
        }
    }
    // Beside the next batch, which does not wait for log lines to be written.
    tokio::spawn(async move {
        for (ended, verdict) in settled {
            ended.settle(verdict);
        }
    });
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

    fn next_try(&self) -> Option<Instant> {
        (!self.requests.is_empty()).then_some(self.next_try)
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

/// Endings whose statement was too slow all by itself: a trigger of theirs, say, waits for a lock.
struct Slow {
    requests: VecDeque<Request>,
    next_try: Instant,
}

impl Default for Slow {
    fn default() -> Self {
        Self { requests: VecDeque::new(), next_try: Instant::now() }
    }
}

impl Slow {
    fn add(&mut self, request: Request, took: Duration) {
        self.next_try = Instant::now() + (took * SLOW_REST.0).min(SLOW_REST.1);
        self.requests.push_back(request);
    }

    fn next_try(&self) -> Option<Instant> {
        (!self.requests.is_empty()).then_some(self.next_try)
    }

    /// The next one, if it is time.
    fn due(&mut self) -> Option<Request> {
        if self.next_try > Instant::now() {
            return None;
        }
        self.requests.pop_front()
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
/// recognised: the verdict is then `Already`. None for those that were too slow all by themselves.
async fn end_at_last(queue: &Queue, endings: &[Ending]) -> Vec<Option<Verdict>> {
    let mut portion = Portion::of(endings.len());
    let mut verdicts = Vec::with_capacity(endings.len());
    while verdicts.len() < endings.len() {
        let rest = &endings[verdicts.len()..];
        let began = Instant::now();
        let part = portion.first(rest);
        match queue.end(part).await {
            Ok(more) => {
                verdicts.extend(more.into_iter().map(Some));
                portion.answered(began.elapsed());
            }
            Err(error) if part.len() == 1 && error.is_too_slow() => {
                tracing::warn!(task_id = %part[0].lease().id, %error, "an ending is too slow, others go first");
                verdicts.push(None);
            }
            Err(error) => {
                tracing::warn!(endings = rest.len(), %error, "endings wait for the database");
                sleep(portion.failed()).await;
            }
        }
    }
    verdicts
}

/// How much to ask for at once: half as much with each failure, since a batch may be too much for the role's
/// `statement_timeout`, and twice as much with each quick answer, since mostly it was an outage.
struct Portion {
    size: usize,
    wait: Duration,
}

impl Portion {
    fn of(size: usize) -> Self {
        Self { size, wait: BACKOFF.0 }
    }

    /// As many of these as one statement takes.
    fn first<'a>(&self, endings: &'a [Ending]) -> &'a [Ending] {
        let mut bytes = 0;
        let fitting = endings.iter().take(self.size).take_while(|ending| {
            bytes += ending.bytes();
            bytes <= MOST_BYTES
        });
        &endings[..fitting.count().max(1)]
    }

    fn answered(&mut self, took: Duration) {
        *self = Self::of(if took < QUICK { self.size * 2 } else { self.size });
    }

    /// How long to wait before the next try.
    fn failed(&mut self) -> Duration {
        self.size = (self.size / 2).max(1);
        let wait = self.wait;
        self.wait = (wait * 2).min(BACKOFF.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::queue::Lease;

    #[test]
    fn after_an_outage_a_batch_is_few_statements() {
        let mut portion = Portion::of(MAX_BATCH);
        let waits: Vec<Duration> = (0..20).map(|_| portion.failed()).collect();
        assert_eq!((waits[0], waits[1], waits[19]), (BACKOFF.0, BACKOFF.0 * 2, BACKOFF.1));
        let (mut ended, mut statements) = (0, 0);
        while ended < MAX_BATCH {
            ended += portion.size;
            statements += 1;
            portion.answered(Duration::ZERO);
        }
        assert_eq!(statements, 9, "1, 2, 4 … 256 endings");
        assert_eq!(portion.failed(), BACKOFF.0, "another outage");
    }

    #[test]
    fn large_results_are_spread_over_several_statements() {
        let lease = Lease { id: Uuid::nil(), token: Uuid::nil() };
        let endings = vec![Ending::complete(lease, "x".repeat(MOST_BYTES / 5).into()); 6];
        let portion = Portion::of(MAX_BATCH);
        assert_eq!(portion.first(&endings).len(), 4, "each has quotation marks, too");
        assert_eq!(portion.first(&endings[4..]).len(), 2);
    }

    #[test]
    fn what_took_too_long_is_not_tried_again_at_once() {
        let mut portion = Portion::of(MAX_BATCH);
        portion.failed();
        portion.answered(QUICK);
        assert_eq!(portion.size, MAX_BATCH / 2);
    }
}
