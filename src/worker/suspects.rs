//! Sees to tasks that must run with no other in their process: one process reserves such a task, lets nobody else in, and
//! claims it when it has become empty. The others go on as usual.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::company::Wish;
use super::engine::Engine;
use super::execute::Attempt;
use super::scope::Scope;
use crate::db::DbError;
use crate::queue::RESERVED_FOR;

/// What one poller knows of suspects.
pub(super) struct Suspects {
    reserved: Option<Reserved>,
    looked_at: Instant,
}

/// Kept for us while our other tasks end.
struct Reserved {
    task: Uuid,
    until: Instant,
    #[expect(dead_code, reason = "held, not read")]
    wish: Wish,
}

/// What came of a look.
pub(super) enum Room {
    /// Nothing has to run alone here.
    Unneeded,
    /// Something has to end first.
    Awaited,
    /// What runs alone from now on; nothing, if somebody else has got it.
    Made(Vec<Attempt>),
}

impl Suspects {
    pub(super) fn new() -> Self {
        Self { reserved: None, looked_at: Instant::now() }
    }

    /// Whether to look for one, even if there was no time to ask whether one is due.
    pub(super) fn must_be_looked_at(&self, interval: Duration) -> bool {
        self.reserved.is_some() || self.looked_at.elapsed() >= interval
    }

    /// Somebody has asked, and none was due.
    pub(super) fn none_is_due(&mut self) {
        self.looked_at = Instant::now();
    }

    /// Reserves a suspect, if one is due, and claims it if the process is empty. While other tasks wait it does so for half
    /// of the time at the most: suspects, however many and however long, must not bring everything else to a halt.
    pub(super) async fn make_room(
        &mut self,
        engine: &Arc<Engine>,
        scope: &Arc<Scope>,
        others_wait: bool,
    ) -> Result<Room, DbError> {
        self.looked_at = Instant::now();
        if self.reserved.is_none() && others_wait && engine.company.owes_others() {
            return Ok(Room::Unneeded);
        }
        let reserved = match &mut self.reserved {
            Some(reserved) => reserved,
            none => {
                let until = Instant::now() + RESERVED_FOR;
                let Some(task) = engine.queue.reserve_suspect(&engine.types).await? else {
                    return Ok(Room::Unneeded);
                };
                none.insert(Reserved { task, until, wish: engine.company.wish_to_be_alone() })
            }
        };
        if let Some(alone) = engine.company.try_be_alone() {
            let task = reserved.task;
            let claim = async { Ok(engine.queue.claim_reserved(task).await?.into_iter().collect()) };
            let attempts = engine.claim(scope, alone, claim).await?;
            self.reserved = None;
            return Ok(Room::Made(attempts));
        }
        let now = Instant::now();
        if reserved.until.saturating_duration_since(now) < RESERVED_FOR / 2 {
            if !engine.queue.keep_reserved(reserved.task).await? {
                self.reserved = None;
                return Ok(Room::Unneeded);
            }
            reserved.until = now + RESERVED_FOR;
        }
        Ok(Room::Awaited)
    }

    /// Others have to see to what was kept for us.
    pub(super) async fn leave(&mut self, engine: &Engine) {
        if let Some(Reserved { task, .. }) = self.reserved.take() {
            let _ = engine.queue.give_up_reserved(task).await;
        }
    }
}
