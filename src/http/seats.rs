//! Who is connected, and who has to go when there is no room: whoever has asked for nothing for the longest time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Places for connections, a limited number of them.
pub(super) struct Seats {
    free: Arc<Semaphore>,
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

/// The place of one connection. It is free again when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// Under which it rests; none while a request of it is answered.
    number: Mutex<Option<u64>>,
    answered: AtomicBool,
    /// Cancelled when it has to go.
    pub(super) leave: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    pub(super) fn new(most: usize, stop: CancellationToken) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most));
        Arc::new(Self { free, resting: Mutex::default(), rested: Notify::new(), stop })
    }

    /// A place for somebody who is at the door. Where all are taken somebody who rests has to go; if each of them has a
    /// request under way, the first whose is answered.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        let place = loop {
            let rested = self.rested.notified();
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                break place;
            }
            self.make_room();
            tokio::select! {
                place = self.free.clone().acquire_owned() => break place.expect("never closed"),
                () = rested => {}
            }
        };
        let seat = Seat {
            seats: self.clone(),
            number: Mutex::default(),
            answered: AtomicBool::new(false),
            leave: self.stop.child_token(),
            _place: place,
        };
        seat.rest();
        Arc::new(seat)
    }

    /// Has the one go that has rested for the longest time, if any rests.
    pub(super) fn make_room(&self) {
        let first = self.resting.lock().expect("never poisoned").connections.pop_first();
        if let Some((_, leave)) = first {
            leave.cancel();
        }
    }
}

impl Seat {
    /// A request of it has arrived: it may stay until that is answered.
    pub(super) fn asks(&self) {
        let number = self.number.lock().expect("never poisoned").take();
        if let Some(number) = number {
            self.seats.resting.lock().expect("never poisoned").connections.remove(&number);
        }
    }

    /// Its request is answered.
    pub(super) fn is_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.rest();
        self.seats.rested.notify_waiters();
    }

    /// Whether there may be an answer that is still on its way out.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
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
