// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where members can be dialled: where they were reached last, what they say themselves, what was found otherwise.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Door, MAX_DOOR_ADDRESSES, MAX_DOORS};

use super::Network;
use crate::{
    config::CARRIER_PORT,
    membership::store::{Change, Seen},
    path::{is_place, is_relayed},
};

/// Addresses of one member that are tried.
const MAX_TRIED: usize = 12;
/// Addresses remembered of one member.
const MAX_SEEN: usize = 3;
/// Where a member was reached is written down again after so long, in ms, also if it is the same place.
const SEEN_AGAIN_MS: u64 = 24 * 3_600_000;

impl Network {
    /// Where to dial a member, best first.
    pub(in crate::membership) fn endpoints(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let record = self.records.get(peer).map(|record| record.draft().endpoints.as_slice()).unwrap_or_default();
        let seen = self.seen.get(peer).map(|seen| seen.addresses.as_slice()).unwrap_or_default();
        let hints = self.hints.get(peer).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        // The newest place first, then what the member says: it may have moved since.
        for at in seen.iter().take(1).chain(record).chain(hints).chain(seen.iter().skip(1)) {
            // A dial there would go through our own tunnel.
            if !endpoints.contains(at) && is_place(*at) && !self.is_overlay(at.ip()) {
                endpoints.push(*at);
            }
        }
        endpoints.truncate(MAX_TRIED);
        endpoints
    }

    /// Whether an address is one of this network's own.
    pub(in crate::membership) fn is_overlay(&self, at: IpAddr) -> bool {
        match at.to_canonical() {
            IpAddr::V4(v4) => self.pool().contains(&v4),
            IpAddr::V6(v6) => self.prefix_v6().contains(&v6),
        }
    }

    /// A dial of ours reached a member there: after a restart that is tried first, whoever else is gone.
    pub(in crate::membership) fn reached_at(&mut self, now_ms: u64, peer: PeerId, at: SocketAddr) {
        // The address of a way is no place, and a port that a carrier found is no other place than the member's own.
        if is_relayed(at) || at.port() == CARRIER_PORT && !self.endpoints(&peer).contains(&at) {
            return;
        }
        let before = self.seen.get(&peer);
        let known = before.is_some_and(|seen| {
            seen.addresses.first() == Some(&at) && now_ms.saturating_sub(seen.at_ms) < SEEN_AGAIN_MS
        });
        if known {
            return;
        }
        let others = before.into_iter().flat_map(|seen| seen.addresses.iter().copied()).filter(|other| *other != at);
        let mut addresses: Vec<SocketAddr> = std::iter::once(at).chain(others).collect();
        addresses.truncate(MAX_SEEN);
        let seen = Seen { addresses, at_ms: now_ms };
        self.changes.push(Change::Seen(self.id, peer, Some(seen.clone())));
        self.seen.insert(peer, seen);
        self.dirty = true;
    }

    /// Forgets where those were that are no members any more.
    pub(super) fn forget_places(&mut self, members: &BTreeSet<PeerId>) {
        let gone: Vec<PeerId> = self.seen.keys().filter(|peer| !members.contains(*peer)).copied().collect();
        for peer in gone {
            self.seen.remove(&peer);
            self.changes.push(Change::Seen(self.id, peer, None));
        }
    }

    /// A member was found there; the link proves whether that is true.
    pub(in crate::membership) fn hint(&mut self, peer: PeerId, addresses: Vec<SocketAddr>) -> bool {
        if !self.constitution.view().members.contains_key(&peer) || addresses.is_empty() {
            return false;
        }
        let news = self.hints.get(&peer) != Some(&addresses);
        if news {
            self.hints.insert(peer, addresses);
            self.reach.forgive(&peer);
            self.dirty = true;
        }
        news
    }

    /// Admins to be asked by somebody who wants to join: those that seem to be there first, `own` before all.
    pub(in crate::membership) fn doors(&self, own: &[SocketAddr]) -> Vec<Door> {
        let view = self.constitution.view();
        let mut admins: Vec<&PeerId> = view.admins.keys().filter(|peer| **peer != self.own).collect();
        admins.sort_by_key(|peer| (!self.heard.contains_key(*peer), !self.reach.seems_there(peer)));
        let us = (self.am_admin() && !own.is_empty()).then(|| (self.own, own.to_vec()));
        let others = admins.into_iter().map(|peer| (*peer, self.endpoints(peer)));
        let mut doors: Vec<Door> = us
            .into_iter()
            .chain(others)
            .map(|(peer, mut addresses)| {
                addresses.truncate(MAX_DOOR_ADDRESSES);
                Door { peer, addresses }
            })
            .filter(|door| !door.addresses.is_empty())
            .collect();
        doors.truncate(MAX_DOORS);
        doors
    }
}
