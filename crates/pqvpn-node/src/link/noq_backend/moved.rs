// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that hang where they moved to.
//!
//! Where the peer's address changes noq asks there whether it is the peer (RFC 9000 §9.3), for three probe timeouts, and until
//! it is answered sends neither data nor acknowledgements. Where the answer does not come in time it never asks again. Such a
//! link is closed, so that its peer, which would not notice for minutes, makes another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use noq::{Connection, PathId, PathStats, WeakConnectionHandle};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::link::CLOSE_DROPPED;

/// How often links are looked at while one asks, how many times, and how often from then on.
const LOOK: Duration = Duration::from_secs(1);
const SOON: u32 = 16;
const LATER: Duration = Duration::from_secs(30);
/// How long after it asked last a link hangs, at least: noq asks again before.
const PATIENCE: Duration = Duration::from_secs(3);

/// The accepted links of an endpoint; only those move.
#[derive(Debug, Clone, Default)]
pub(super) struct Moved(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    links: Mutex<HashMap<usize, Link>>,
    elsewhere: Notify,
}

#[derive(Debug)]
struct Link {
    /// Weak: it must not live longer for being looked at.
    connection: WeakConnectionHandle,
    asking: Asking,
}

impl Moved {
    fn links(&self) -> MutexGuard<'_, HashMap<usize, Link>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after that link for as long as the guard lives.
    pub(super) fn watch(&self, connection: &Connection) -> Watched {
        let (id, link) =
            (connection.stable_id(), Link { connection: connection.weak_handle(), asking: Asking::default() });
        self.links().insert(id, link);
        Watched { id, moved: self.clone() }
    }

    /// Tells that a link sends elsewhere than before.
    pub(super) fn tell(&self) {
        self.0.elsewhere.notify_one();
    }

    /// Closes links that hang; never ends.
    pub(super) async fn run(self) {
        let elsewhere = &self.0.elsewhere;
        loop {
            elsewhere.notified().await;
            let mut looks = 0;
            loop {
                sleep(LOOK).await;
                if !self.look(tokio::time::Instant::now().into_std()) {
                    break;
                }
                looks += 1;
                if looks >= SOON && timeout(LATER, elsewhere.notified()).await.is_ok() {
                    looks = 0;
                }
            }
        }
    }

    /// Whether any link asks and is not answered.
    fn look(&self, now: Instant) -> bool {
        let (mut hanging, mut any) = (Vec::new(), false);
        for link in self.links().values_mut() {
            let Some(connection) = link.connection.upgrade().filter(|open| open.close_reason().is_none()) else {
                continue;
            };
            let Some(stats) = connection.path_stats(PathId::ZERO) else { continue };
            match link.asking.look(now, Seen::of(&stats)) {
                State::Settled => {}
                State::Waits => any = true,
                State::Hangs => hanging.push(connection),
            }
        }
        for connection in hanging {
            tracing::debug!(link = connection.stable_id(), "a link that hangs where it moved to is closed");
            connection.close(CLOSE_DROPPED.into(), b"");
        }
        any
    }
}

/// The right of a link to be looked after.
#[derive(Debug)]
pub(super) struct Watched {
    id: usize,
    moved: Moved,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.moved.links().remove(&self.id);
    }
}

/// What a link has asked, heard and answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    challenges: u64,
    /// Frames that ask for an acknowledgement, of those a waiting peer sends (RFC 9000 §13.2).
    eliciting: u64,
    acknowledgements: u64,
}

impl Seen {
    fn of(stats: &PathStats) -> Self {
        let (got, sent) = (&stats.frame_rx, &stats.frame_tx);
        Self {
            challenges: sent.path_challenge,
            eliciting: got.ping + got.immediate_ack + got.stream + got.reset_stream + got.stop_sending,
            acknowledgements: sent.acks + sent.path_acks,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Settled,
    Waits,
    Hangs,
}

/// Whether a link says anything where it asks.
#[derive(Debug, Default)]
struct Asking {
    /// At the last look at which it had asked, or acknowledged something.
    seen: Seen,
    /// When it asked last, unless it has acknowledged something since.
    since: Option<Instant>,
    /// Since when it owes its peer an acknowledgement.
    owes: Option<Instant>,
}

impl Asking {
    fn look(&mut self, now: Instant, seen: Seen) -> State {
        if seen.challenges != self.seen.challenges {
            *self = Self { seen, since: Some(now), owes: None };
        } else if seen.acknowledgements != self.seen.acknowledgements {
            // It may speak.
            *self = Self { seen, since: None, owes: None };
        }
        let Some(since) = self.since else { return State::Settled };
        // A peer that says nothing misses nothing: it may be where it was, and the move somebody else's.
        if seen.eliciting == self.seen.eliciting {
            return State::Waits;
        }
        let owes = *self.owes.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= PATIENCE && now.saturating_duration_since(owes) >= LOOK;
        if is_over { State::Hangs } else { State::Waits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that acknowledged what there was, and asks now; its peer spoke when it moved.
    fn asking(now: Instant) -> (Asking, Seen) {
        let mut asking = Asking::default();
        let before = Seen { challenges: 1, eliciting: 10, acknowledgements: 10 };
        asking.look(now, before);
        assert_eq!(asking.look(now, Seen { acknowledgements: 11, ..before }), State::Settled);
        let seen = Seen { challenges: 2, eliciting: 11, acknowledgements: 11 };
        assert_eq!(asking.look(now, seen), State::Waits);
        (asking, seen)
    }

    #[test]
    fn a_link_that_asks_in_vain_and_does_not_acknowledge_hangs() {
        let now = Instant::now();
        let (mut asking, seen) = asking(now);
        assert_eq!(asking.look(now + PATIENCE, seen), State::Waits, "its peer says nothing");
        let spoken = Seen { eliciting: 12, ..seen };
        assert_eq!(asking.look(now + PATIENCE, spoken), State::Waits, "the acknowledgement may be under way");
        assert_eq!(asking.look(now + PATIENCE + LOOK, spoken), State::Hangs);
        let (mut asking, seen) = self::asking(now);
        let spoken = Seen { eliciting: 12, ..seen };
        assert_eq!(asking.look(now + LOOK, spoken), State::Waits);
        assert_eq!(asking.look(now + PATIENCE - LOOK / 2, spoken), State::Waits, "it asks again");
        assert_eq!(asking.look(now + PATIENCE, spoken), State::Hangs);
    }

    #[test]
    fn a_link_that_asks_again_has_time_anew() {
        let now = Instant::now();
        let (mut asking, seen) = asking(now);
        let mut spoken = Seen { eliciting: 12, ..seen };
        assert_eq!(asking.look(now + LOOK, spoken), State::Waits);
        spoken.challenges = 3;
        assert_eq!(asking.look(now + PATIENCE, spoken), State::Waits);
        spoken.eliciting = 13;
        assert_eq!(asking.look(now + PATIENCE + LOOK, spoken), State::Waits);
        assert_eq!(asking.look(now + PATIENCE * 2, spoken), State::Hangs);
    }

    #[test]
    fn a_link_that_acknowledges_is_settled() {
        let now = Instant::now();
        let (mut asking, seen) = asking(now);
        let mut spoken = Seen { eliciting: 12, ..seen };
        assert_eq!(asking.look(now + LOOK, spoken), State::Waits);
        spoken.acknowledgements = 12;
        assert_eq!(asking.look(now + PATIENCE, spoken), State::Settled);
        spoken.eliciting = 13;
        assert_eq!(asking.look(now + PATIENCE * 2, spoken), State::Settled);
    }
}
