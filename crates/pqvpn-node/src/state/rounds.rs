// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state task does now and then, and for many at a time.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use pqvpn_crypto::peer_id::PeerId;

use super::{leaving::Leaving, sleeping::Gone};

/// Of so many who were put out it is kept where they were until the networks have time; of more, of the last.
const PUT_OUT: usize = 256;

/// When each was done last, and for whom it is to be done.
pub(crate) struct Rounds {
    /// When ways in use were last held.
    pub(super) held_at: Instant,
    /// When the data plane was last asked what it saw.
    pub(super) looked_at: Instant,
    /// Links that fell asleep or ended since memory was last given back.
    pub(super) gone: Gone,
    /// Sessions that were replaced and on which the data plane still receives.
    pub(super) leaving: Leaving,
    pub(super) untold: Untold,
    /// Packets may wait for sessions.
    pub(super) parks: bool,
}

/// What has not been told yet, as queues were full.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Who does not know yet whether the node rests.
    pub(super) networks: bool,
    pub(super) dht: bool,
    /// Whose session was ended because it is no peer any more, and where it was.
    put_out: VecDeque<(PeerId, Vec<SocketAddr>)>,
}

impl Untold {
    pub(super) fn is_any(&self) -> bool {
        self.networks || self.dht || !self.put_out.is_empty()
    }

    pub(super) fn add_put_out(&mut self, peer: PeerId, at: Vec<SocketAddr>) {
        self.put_out.retain(|(other, _)| *other != peer);
        self.put_out.push_back((peer, at));
        if self.put_out.len() > PUT_OUT {
            self.put_out.pop_front();
        }
    }

    /// Tells who was put out, in the order in which that was, until `tell` has no room.
    pub(super) fn tell_put_out(&mut self, tell: impl Fn(PeerId, Vec<SocketAddr>) -> bool) {
        while self.put_out.front().is_some_and(|(peer, at)| tell(*peer, at.clone())) {
            self.put_out.pop_front();
        }
    }
}

impl Rounds {
    pub(crate) fn new(now: Instant) -> Self {
        let (gone, leaving) = (Gone::default(), Leaving::default());
        Self { held_at: now, looked_at: now, gone, leaving, untold: Untold::default(), parks: false }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn who_was_put_out_while_the_networks_were_busy_is_told_of_later() {
        let (mut untold, told) = (Untold::default(), RefCell::new(Vec::new()));
        let peer = |n: u8| PeerId::from_bytes([n; 32]);
        let at = vec![SocketAddr::from(([203, 0, 113, 1], 1))];
        (0..3).for_each(|n| untold.add_put_out(peer(n), at.clone()));
        let tell = |room: usize| {
            let told = &told;
            move |peer, _at| {
                let has_room = told.borrow().len() < room;
                if has_room {
                    told.borrow_mut().push(peer);
                }
                has_room
            }
        };
        untold.tell_put_out(tell(1));
        assert!(untold.is_any() && *told.borrow() == [peer(0)]);
        untold.tell_put_out(tell(9));
        assert!(!untold.is_any() && *told.borrow() == [peer(0), peer(1), peer(2)]);
    }

    #[test]
    fn of_many_who_were_put_out_the_last_are_remembered_and_each_once() {
        let mut untold = Untold::default();
        for n in (0..600_u16).chain(598..600) {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            untold.add_put_out(PeerId::from_bytes(id), Vec::new());
        }
        let left: Vec<u16> =
            untold.put_out.iter().map(|(id, _)| u16::from_be_bytes([id.as_bytes()[0], id.as_bytes()[1]])).collect();
        assert_eq!(left, (600 - 256..600).collect::<Vec<_>>());
    }
}
