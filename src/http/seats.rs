//! Who is connected, and who has to go when there is no room: whoever has asked for nothing for the longest time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Places for connections, a limited number of them.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    /// For those that have no place any more, while their last answer is on its way.
    farewells: Semaphore,
    resting: Mutex<Resting>,
    rested: Notify,
    /// Cancelled when all have to go.
    stop: CancellationToken,
}

/// Connections without a request, in the order in which they came to that.
#[derive(Default)]
struct Resting {
    next: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

/// The place of one connection. It is free again when this is dropped, or given up.
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// Under which it rests; none while a request of it is answered.
    number: Mutex<Option<u64>>,
    answered: AtomicBool,
    /// Cancelled when it has to go.
    pub(super) leave: CancellationToken,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Seats {
    pub(super) fn new(most: usize, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most)),
            farewells: Semaphore::new(most.div_ceil(8)),
            resting: Mutex::default(),
            rested: Notify::new(),
            stop,
        })
    }

    /// A place for somebody who is at the door. Where all are taken somebody who rests has to go; if each of them has a
    /// request under way, the first whose is answered.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        let place = loop {
            let rested = self.rested.notified();
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                break place;
            }
            let left = self.free.clone().acquire_owned();
            if self.make_room() {
                break left.await.expect("never closed");
            }
            tokio::select! {
                place = left => break place.expect("never closed"),
                () = rested => {}
            }
        };
        let seat = Seat {
            seats: self.clone(),
            number: Mutex::default(),
            answered: AtomicBool::new(false),
            leave: self.stop.child_token(),
            place: Mutex::new(Some(place)),
        };
        seat.rest();
        Arc::new(seat)
    }

    /// Has the one go that has rested for the longest time. False if none rests.
    pub(super) fn make_room(&self) -> bool {
        let first = self.resting.lock().expect("never poisoned").connections.pop_first();
        first.is_some_and(|(_, leave)| {
            leave.cancel();
            true
        })
    }
}

impl Seat {
    /// A request of it has arrived: it may stay until that is answered. False if it has been told to go before.
    pub(super) fn asks(&self) -> bool {
        let number = self.number.lock().expect("never poisoned").take();
        let mut resting = self.seats.resting.lock().expect("never poisoned");
        number.is_some_and(|number| resting.connections.remove(&number).is_some())
    }

    /// Its request is answered.
    pub(super) fn is_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.rest();
        self.seats.rested.notify_waiters();
    }

    /// Gives the place to somebody else. With what this returns the connection may stay for as long as its last answer
    /// needs; none if there was no answer, or if too many stay like that, whose clients do not read.
    pub(super) fn give_up(&self) -> Option<SemaphorePermit<'_>> {
        drop(self.place.lock().expect("never poisoned").take());
        let answered = self.answered.load(Ordering::Relaxed);
        if answered { self.seats.farewells.try_acquire().ok() } else { None }
    }

    fn rest(&self) {
        let mut resting = self.seats.resting.lock().expect("never poisoned");
        let number = resting.next;
        resting.next += 1;
        resting.connections.insert(number, self.leave.clone());
        *self.number.lock().expect("never poisoned") = Some(number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.asks();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_newcomer_sends_one_away_and_not_each_that_is_answered_while_that_one_leaves() {
        let seats = Seats::new(3, CancellationToken::new());
        let busy = [seats.take().await, seats.take().await, seats.take().await];
        assert!(busy.iter().all(|seat| seat.asks()));
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none());
        for seat in &busy {
            seat.is_answered();
            assert!((&mut newcomer).now_or_never().is_none(), "nobody has left");
        }
        let leaving: Vec<bool> = busy.iter().map(|seat| seat.leave.is_cancelled()).collect();
        assert_eq!(leaving, [true, false, false]);
        busy[0].give_up();
        assert!(newcomer.now_or_never().is_some());
    }

    #[tokio::test]
    async fn of_those_who_have_to_go_only_some_may_stay_for_their_last_answer() {
        let seats = Seats::new(16, CancellationToken::new());
        let mut all = Vec::new();
        for _ in 0..16 {
            all.push(seats.take().await);
        }
        assert!(all[0].give_up().is_none(), "there was no answer");
        for seat in &all {
            assert!(seat.asks());
            seat.is_answered();
        }
        let stay: Vec<_> = all.iter().filter_map(|seat| seat.give_up()).collect();
        assert_eq!(stay.len(), 2);
        drop(stay);
        assert!(all[3].give_up().is_some());
    }
}
