// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that hang where they moved to.
//!
//! Where the peer's address changes noq asks there whether it is the peer (RFC 9000 §9.3), at most for a second, and until it is
//! answered sends acknowledgements and nothing else. Where that answer does not come it never asks again. Such a link is
//! closed, so that its peer, which would not notice for minutes, makes another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use noq::{Connection, PathId, PathStats, WeakConnectionHandle};
use tokio::sync::Notify;

use crate::link::CLOSE_DROPPED;

/// How often links are looked at while one waits for an answer.
const LOOK: Duration = Duration::from_secs(1);
/// How long after it asked last a link hangs, at least: noq asks again before.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same, in round trips.
const ROUND_TRIPS: u32 = 10;
/// How long it is looked at: who has anything to say repeats it within that time.
const WATCHED: Duration = Duration::from_mins(2);

/// The accepted links of an endpoint; only those move.
#[derive(Debug, Clone, Default)]
pub(super) struct Moved(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    links: Mutex<HashMap<usize, Link>>,
    asked: Notify,
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

    /// Tells that a link asks, or is elsewhere.
    pub(super) fn tell(&self) {
        self.0.asked.notify_one();
    }

    /// Closes links that hang, for ever.
    pub(super) async fn run(self) {
        loop {
            self.0.asked.notified().await;
            loop {
                tokio::time::sleep(LOOK).await;
                if !self.look(tokio::time::Instant::now().into_std()) {
                    break;
                }
            }
        }
    }

    /// Whether any link waits for an answer.
    fn look(&self, now: Instant) -> bool {
        let (mut hanging, mut any) = (Vec::new(), false);
        for link in self.links().values_mut() {
            let Some(connection) = link.connection.upgrade() else { continue };
            let Some(stats) = connection.path_stats(PathId::ZERO) else { continue };
            let Some(remote) = super::remote(&connection) else { continue };
            match link.asking.look(now, Seen::of(&stats, remote), stats.rtt) {
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

/// What a link has asked and was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    remote: SocketAddr,
    challenges: u64,
    responses: u64,
    /// Frames by which a peer says something, or asks for an acknowledgement.
    received: u64,
}

impl Seen {
    fn of(stats: &PathStats, remote: SocketAddr) -> Self {
        let got = &stats.frame_rx;
        Self {
            remote,
            challenges: stats.frame_tx.path_challenge,
            responses: got.path_response,
            received: got.stream + got.ping + got.immediate_ack + got.acks,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Settled,
    Waits,
    Hangs,
}

/// Whether a link is answered where it asks.
#[derive(Debug, Default)]
struct Asking {
    challenges: u64,
    responses: u64,
    /// When it asked last, and what was seen then.
    since: Option<(Instant, Seen)>,
}

impl Asking {
    fn look(&mut self, now: Instant, seen: Seen, rtt: Duration) -> State {
        if seen.responses != self.responses {
            self.since = None;
        } else if seen.challenges != self.challenges {
            self.since = Some((now, seen));
        }
        (self.challenges, self.responses) = (seen.challenges, seen.responses);
        let Some((since, then)) = self.since else { return State::Settled };
        let waited = now.saturating_duration_since(since);
        if seen.remote != then.remote || waited > WATCHED {
            self.since = None;
            return State::Settled;
        }
        // A peer that says nothing misses nothing: it may be where it was, and the move somebody else's.
        match waited >= PATIENCE.max(rtt * ROUND_TRIPS) && seen.received > then.received {
            true => State::Hangs,
            false => State::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// A link that was answered before and asks now.
    fn asking(now: Instant) -> (Asking, Seen) {
        let mut asking = Asking::default();
        let mut seen = Seen { remote: at(1), challenges: 1, responses: 1, received: 10 };
        assert_eq!(asking.look(now, seen, RTT), State::Settled);
        seen = Seen { remote: at(2), challenges: 2, received: 11, ..seen };
        assert_eq!(asking.look(now, seen, RTT), State::Waits);
        (asking, seen)
    }

    #[test]
    fn a_link_that_is_not_answered_and_whose_peer_speaks_hangs() {
        let now = Instant::now();
        let (mut asking, seen) = asking(now);
        let spoken = Seen { received: 12, ..seen };
        assert_eq!(asking.look(now + PATIENCE / 2, spoken, RTT), State::Waits);
        assert_eq!(asking.look(now + PATIENCE, seen, RTT), State::Waits, "its peer says nothing");
        assert_eq!(asking.look(now + PATIENCE, spoken, PATIENCE), State::Waits, "a long way");
        assert_eq!(asking.look(now + PATIENCE, spoken, RTT), State::Hangs);
    }

    #[test]
    fn a_link_that_asks_again_or_is_answered_or_moves_does_not_hang() {
        let (now, rtt) = (Instant::now(), RTT);
        let later = now + PATIENCE;
        let look = |change: fn(&mut Seen)| {
            let (mut asking, mut seen) = asking(now);
            seen.received = 20;
            change(&mut seen);
            let state = asking.look(later, seen, rtt);
            seen.received = 30;
            (state, asking.look(later + PATIENCE / 2, seen, rtt))
        };
        assert_eq!(look(|seen| seen.challenges = 3), (State::Waits, State::Waits));
        assert_eq!(look(|seen| (seen.challenges, seen.responses) = (3, 2)), (State::Settled, State::Settled));
        assert_eq!(look(|seen| seen.remote = at(1)), (State::Settled, State::Settled));
    }

    #[test]
    fn nobody_is_looked_at_for_ever() {
        let now = Instant::now();
        let (mut asking, seen) = asking(now);
        assert_eq!(asking.look(now + WATCHED, seen, RTT), State::Waits);
        assert_eq!(asking.look(now + WATCHED + LOOK, seen, RTT), State::Settled);
        assert_eq!(asking.look(now + WATCHED + LOOK, Seen { received: 99, ..seen }, RTT), State::Settled);
    }
}
