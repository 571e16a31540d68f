//! Who is in the process: ordinary tasks side by side, or one task alone whose process has died under it twice.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Counts the claims and the tasks of this process, and lets nobody in while one is alone.
#[derive(Default)]
pub(super) struct Company {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Default)]
struct Inside {
    others: usize,
    alone: bool,
}

/// One claim and the tasks it brought, from before it is sent until their last verdict is in. Clones share it.
#[derive(Clone)]
pub(super) struct Membership {
    #[expect(dead_code, reason = "held, not read")]
    guard: Arc<Guard>,
}

struct Guard {
    company: Arc<Company>,
    alone: bool,
}

impl Company {
    /// Joins the others, unless somebody is alone.
    pub(super) fn try_join(self: &Arc<Self>) -> Option<Membership> {
        let mut inside = self.lock();
        if inside.alone {
            return None;
        }
        inside.others += 1;
        Some(self.membership(false))
    }

    /// Keeps all others out, if nobody is inside.
    pub(super) fn try_be_alone(self: &Arc<Self>) -> Option<Membership> {
        let mut inside = self.lock();
        if inside.alone || inside.others > 0 {
            return None;
        }
        inside.alone = true;
        Some(self.membership(true))
    }

    /// Waits until nobody is inside.
    pub(super) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            {
                let inside = self.lock();
                if inside.others == 0 && !inside.alone {
                    return;
                }
            }
            left.await;
        }
    }

    fn membership(self: &Arc<Self>, alone: bool) -> Membership {
        Membership { guard: Arc::new(Guard { company: self.clone(), alone }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("never poisoned")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inside = self.company.lock();
        if self.alone {
            inside.alone = false;
        } else {
            inside.others -= 1;
        }
        drop(inside);
        self.company.left.notify_waiters();
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
}
