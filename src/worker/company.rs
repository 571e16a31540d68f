//! Who is in the process: ordinary tasks side by side, or one task alone whose process has died under it twice.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Others are owed no more than this, however long they were kept out: perhaps none of them was there.
const LARGEST_DEBT: Duration = Duration::from_mins(10);

/// Counts the claims and the tasks of this process, and lets nobody in while one is alone or waits to be.
#[derive(Default)]
pub(super) struct Company {
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Default)]
struct Inside {
    others: usize,
    alone: bool,
    /// So many wait to be alone.
    wishes: usize,
    /// Since when nobody could join.
    closed_at: Option<Instant>,
    /// Others could not join for as long as it is until then, and have not had that time yet.
    owed_until: Option<Instant>,
}

/// One claim and the tasks it brought, from before it is sent until their last verdict is in. Clones share it.
#[derive(Clone)]
pub(super) struct Membership {
    #[expect(dead_code, reason = "held, not read")]
    guard: Arc<Guard>,
}

/// Keeps newcomers out until it is dropped, so that the process becomes empty.
pub(super) struct Wish(Arc<Company>);

struct Guard {
    company: Arc<Company>,
    alone: bool,
}

impl Company {
    /// Joins the others, unless somebody is alone or waits to be.
    pub(super) fn try_join(self: &Arc<Self>) -> Option<Membership> {
        let mut inside = self.lock();
        if !inside.lets_in() {
            return None;
        }
        inside.others += 1;
        Some(self.membership(false))
    }

    /// Somebody has to be alone: nobody joins any more.
    pub(super) fn wish_to_be_alone(self: &Arc<Self>) -> Wish {
        let mut inside = self.lock();
        inside.wishes += 1;
        inside.closed_at.get_or_insert_with(Instant::now);
        drop(inside);
        Wish(self.clone())
    }

    /// Keeps all others out, if nobody is inside.
    pub(super) fn try_be_alone(self: &Arc<Self>) -> Option<Membership> {
        let mut inside = self.lock();
        if inside.alone || inside.others > 0 {
            return None;
        }
        inside.alone = true;
        inside.closed_at.get_or_insert_with(Instant::now);
        Some(self.membership(true))
    }

    /// Whether somebody is alone, or has been at the cost of others who have not yet had as much time as that took.
    pub(super) fn owes_others(&self) -> bool {
        let inside = self.lock();
        inside.alone || inside.owed_until.is_some_and(|moment| Instant::now() < moment)
    }

    /// Waits until nobody is inside.
    pub(super) async fn empty(&self) {
        self.until(|inside| inside.others == 0 && !inside.alone).await;
    }

    /// Waits until one may join.
    pub(super) async fn open(&self) {
        self.until(Inside::lets_in).await;
    }

    async fn until(&self, condition: impl Fn(&Inside) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn membership(self: &Arc<Self>, alone: bool) -> Membership {
        Membership { guard: Arc::new(Guard { company: self.clone(), alone }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("never poisoned")
    }
}

impl Inside {
    fn lets_in(&self) -> bool {
        !self.alone && self.wishes == 0
    }

    /// Somebody who kept others out has left.
    fn opened(&mut self) {
        if self.lets_in()
            && let Some(closed_at) = self.closed_at.take()
        {
            let until = Instant::now() + closed_at.elapsed().min(LARGEST_DEBT);
            self.owed_until = self.owed_until.max(Some(until));
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut inside = self.0.lock();
        inside.wishes -= 1;
        inside.opened();
        drop(inside);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inside = self.company.lock();
        if self.alone {
            inside.alone = false;
            inside.opened();
        } else {
            inside.others -= 1;
        }
        drop(inside);
        self.company.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_alone_only_when_nobody_is_inside_and_nobody_joins_then() {
        let company = Arc::new(Company::default());
        let other = company.try_join().expect("nobody is alone");
        let another = other.clone();
        drop(other);
        assert!(company.try_be_alone().is_none(), "a clone is inside");
        drop(another);
        let alone = company.try_be_alone().expect("nobody is inside");
        assert!(company.try_join().is_none() && company.try_be_alone().is_none());
        drop(alone);
        assert!(company.try_join().is_some());
    }

    #[test]
    fn while_somebody_waits_to_be_alone_nobody_joins() {
        let company = Arc::new(Company::default());
        let other = company.try_join().expect("nobody is alone");
        let wish = company.wish_to_be_alone();
        assert!(company.try_join().is_none() && company.try_be_alone().is_none());
        drop(other);
        let alone = company.try_be_alone().expect("nobody is inside");
        drop(wish);
        assert!(company.try_join().is_none());
        drop(alone);
        assert!(company.try_join().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_kept_out_is_owed_as_much_time_as_that_took() {
        let company = Arc::new(Company::default());
        let other = company.try_join();
        let wish = company.wish_to_be_alone();
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(other);
        let alone = company.try_be_alone();
        drop(wish);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(company.owes_others(), "somebody is alone");
        drop(alone);
        tokio::time::advance(Duration::from_millis(6_900)).await;
        assert!(company.owes_others(), "seven seconds");
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(!company.owes_others());
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_bounded_and_not_paid_by_a_smaller_one() {
        let company = Arc::new(Company::default());
        let alone = company.try_be_alone();
        tokio::time::advance(Duration::from_hours(6)).await;
        drop(alone);
        drop(company.try_be_alone());
        tokio::time::advance(LARGEST_DEBT.mul_f64(0.99)).await;
        assert!(company.owes_others());
        tokio::time::advance(LARGEST_DEBT.mul_f64(0.02)).await;
        assert!(!company.owes_others());
    }

    #[tokio::test]
    async fn who_waits_for_the_door_is_told_when_the_last_one_leaves_that_was_or_would_be_alone() {
        let company = Arc::new(Company::default());
        let (wish, alone) = (company.wish_to_be_alone(), company.try_be_alone());
        let waiting = tokio::spawn({
            let company = company.clone();
            async move { company.open().await }
        });
        tokio::task::yield_now().await;
        drop(alone);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one still waits to be alone");
        drop(wish);
        waiting.await.expect("no panic");
    }
}
