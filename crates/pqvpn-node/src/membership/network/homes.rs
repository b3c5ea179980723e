// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom a member that cannot be dialled keeps links with, and where it is looked for.

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::address::{Class, class};

use super::{super::overlay, Network};
use crate::clock;

/// Members that a member behind a router keeps links with, so that others find it through them.
const HOMES: usize = 2;
/// How many such pairs along the ring are looked at before the search begins anew. A member that only gets TCP out has its
/// homes further on, at those that listen for that.
const TURNS: u32 = 4;

impl Network {
    /// The members that `peer` keeps links with if it cannot be dialled itself: the first after it on the ring that can be
    /// dialled from anywhere. Everybody computes the same from the same records, as far as all reach the same.
    pub(in crate::membership) fn homes(&self, peer: &PeerId) -> Vec<PeerId> {
        self.open_members(peer).into_iter().filter(|other| self.reach.seems_there(other)).take(HOMES).collect()
    }

    /// The homes of `peer` to ask for it after it was asked for in vain `misses` times.
    pub(in crate::membership) fn homes_after(&self, peer: &PeerId, misses: u32) -> Vec<PeerId> {
        match turn(misses) {
            0 => self.homes(peer),
            turn => self.open_members(peer).into_iter().skip(turn * HOMES).take(HOMES).collect(),
        }
    }

    /// Those of [`Self::homes_after`] to dial, whether they seem to be there or not, and at first one to spare.
    pub(in crate::membership) fn homes_to_dial(&self, peer: &PeerId, misses: u32) -> Vec<PeerId> {
        let (turn, open) = (turn(misses), self.open_members(peer).into_iter());
        open.skip(turn * HOMES).take(if turn == 0 { HOMES + 1 } else { HOMES }).collect()
    }

    /// The members that can be dialled from anywhere, in their order on the ring after `peer`.
    fn open_members(&self, peer: &PeerId) -> Vec<PeerId> {
        let now_ms = clock::unix_millis();
        let is_open = |other: &PeerId| {
            let record = self.records.get(other);
            record.is_some_and(|record| record.draft().endpoints.iter().any(|at| class(at) == Class::Public))
        };
        let all: Vec<PeerId> = self.others(now_ms).into_iter().chain([self.own]).filter(is_open).collect();
        overlay::following(&self.id, peer, &all)
    }
}

fn turn(misses: u32) -> usize {
    (misses % TURNS) as usize
}
