// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions that were replaced and still receive: packets under them may be on their way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use pqvpn_dataplane::{PeerSlot, SessionId};

/// How long.
const RECEIVES_ON: Duration = Duration::from_secs(3);
/// Of one peer: what crossed, and what that replaced. Who makes session after session has no more of them here.
const OF_ONE_PEER: usize = 2;

/// In the order in which they go.
#[derive(Debug, Default)]
pub(super) struct Leaving(VecDeque<(Instant, PeerSlot, SessionId)>);

impl Leaving {
    /// One more; gives the one that makes room for it.
    pub(super) fn add(&mut self, now: Instant, slot: PeerSlot, id: SessionId) -> Option<SessionId> {
        self.0.push_back((now + RECEIVES_ON, slot, id));
        let of_peer = self.0.iter().filter(|(_, of, _)| *of == slot).count();
        let oldest = self.0.iter().position(|(_, of, _)| *of == slot).filter(|_| of_peer > OF_ONE_PEER)?;
        self.0.remove(oldest).map(|(.., id)| id)
    }

    /// When the first goes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, ..)| *at)
    }

    /// Those whose time is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<SessionId> {
        std::iter::from_fn(|| self.0.pop_front_if(|(at, ..)| *at <= now)).map(|(.., id)| id).collect()
    }

    /// All of a peer.
    pub(super) fn take_of(&mut self, slot: PeerSlot) -> Vec<SessionId> {
        let (gone, rest): (VecDeque<_>, VecDeque<_>) = self.0.drain(..).partition(|(_, of, _)| *of == slot);
        self.0 = rest;
        gone.into_iter().map(|(.., id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_peer_few_are_kept_and_each_goes_in_time() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        assert_eq!(leaving.add(now, 9, SessionId(100)), None);
        for id in 0..1000 {
            let displaced = leaving.add(now, 7, SessionId(id));
            assert_eq!(displaced, id.checked_sub(2).map(SessionId), "the oldest of its own");
        }
        assert_eq!(leaving.next(), Some(now + RECEIVES_ON));
        assert_eq!(leaving.take_due(now + RECEIVES_ON - Duration::from_millis(1)), []);
        assert_eq!(leaving.take_due(now + RECEIVES_ON), [SessionId(100), SessionId(998), SessionId(999)]);
        assert_eq!(leaving.next(), None);
    }

    #[test]
    fn those_of_one_peer_go_at_once_and_no_others() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        for (slot, id) in [(1, 1), (2, 2), (1, 3)] {
            assert_eq!(leaving.add(now, slot, SessionId(id)), None);
        }
        assert_eq!(leaving.take_of(1), [SessionId(1), SessionId(3)]);
        assert_eq!(leaving.take_due(now + RECEIVES_ON), [SessionId(2)]);
    }
}
