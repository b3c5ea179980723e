// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed between two views, and the hash of one.

use std::net::Ipv4Addr;

use pqvpn_crypto::peer_id::PeerId;
use sha2::{Digest, Sha512_256};

use super::View;

/// One change from an older view to a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member came.
    Added(PeerId),
    /// A member went by itself, or its place was taken after it expired.
    Removed(PeerId),
    /// A peer was thrown out.
    Revoked(PeerId),
    /// A member has another name.
    Renamed {
        /// Who.
        peer: PeerId,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A member has another address, because somebody before it in order has the old one, or the pool changed.
    Moved {
        /// Who.
        peer: PeerId,
        /// Before.
        from: Option<Ipv4Addr>,
        /// Now.
        to: Option<Ipv4Addr>,
        /// Who has the old address now.
        winner: Option<PeerId>,
    },
    /// A member's tags, level, expiry or silence limit changed.
    Changed(PeerId),
    /// A key may sign.
    AdminAdded(PeerId),
    /// A key may sign no more.
    AdminRemoved(PeerId),
    /// The parameters changed.
    ParamsChanged,
    /// The policy changed.
    PolicyChanged,
    /// The network was switched off.
    Disabled,
}

impl View {
    /// Everything that changed since `old`, in a fixed order.
    #[must_use]
    pub fn changes_since(&self, old: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        for (peer, member) in &old.members {
            if !self.members.contains_key(peer) && !self.revoked.contains_key(peer) {
                events.push(Event::Removed(member.peer));
            }
        }
        events.extend(
            self.revoked.keys().filter(|peer| !old.revoked.contains_key(peer)).map(|peer| Event::Revoked(*peer)),
        );
        for peer in self.members.keys() {
            self.member_changes(old, peer, &mut events);
        }
        events.extend(self.admins.keys().filter(|peer| !old.is_admin(peer)).map(|peer| Event::AdminAdded(*peer)));
        events.extend(old.admins.keys().filter(|peer| !self.is_admin(peer)).map(|peer| Event::AdminRemoved(*peer)));
        let whole = [
            (self.params != old.params, Event::ParamsChanged),
            (self.policy != old.policy, Event::PolicyChanged),
            (self.disabled && !old.disabled, Event::Disabled),
        ];
        events.extend(whole.into_iter().filter_map(|(changed, event)| changed.then_some(event)));
        events
    }

    fn member_changes(&self, old: &Self, peer: &PeerId, events: &mut Vec<Event>) {
        let (Some(now), before) = (self.members.get(peer), old.members.get(peer)) else { return };
        let Some(before) = before else {
            events.push(Event::Added(*peer));
            return;
        };
        if now.name != before.name {
            events.push(Event::Renamed { peer: *peer, from: before.name.clone(), to: now.name.clone() });
        }
        if now.ipv4 != before.ipv4 {
            let winner = before.ipv4.and_then(|address| self.addresses.get(&address)).copied();
            events.push(Event::Moved { peer: *peer, from: before.ipv4, to: now.ipv4, winner });
        }
        let terms = |m: &super::Member| (m.tags.clone(), m.level_cap, m.expires_ms, m.ephemeral_s);
        if terms(now) != terms(before) {
            events.push(Event::Changed(*peer));
        }
    }

    /// SHA-512/256 over everything two nodes must agree on; what a checkpoint names.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha512_256::new();
        hash.update(b"pqvpn view v1");
        hash.update(self.network.as_bytes());
        hash.update([self.params.quorum, u8::from(self.params.approval), u8::from(self.disabled)]);
        hash.update(self.params.ipv4_pool.addr().octets());
        hash.update([self.params.ipv4_pool.prefix_len()]);
        hash.update(self.params.max_head_age_s.to_be_bytes());
        count(&mut hash, self.admins.len());
        self.admins.keys().for_each(|peer| hash.update(peer.as_bytes()));
        count(&mut hash, self.members.len());
        for member in self.members.values() {
            hash.update(member.peer.as_bytes());
            text(&mut hash, &member.name);
            hash.update(member.ipv4.map_or([0; 4], |address| address.octets()));
            count(&mut hash, member.tags.len());
            member.tags.iter().for_each(|tag| text(&mut hash, tag));
            hash.update([member.level_cap]);
            hash.update(member.expires_ms.unwrap_or(u64::MAX).to_be_bytes());
            hash.update(member.ephemeral_s.unwrap_or(u32::MAX).to_be_bytes());
        }
        count(&mut hash, self.revoked.len());
        self.revoked.keys().for_each(|peer| hash.update(peer.as_bytes()));
        hash.update(self.policy.as_ref().map_or([0; 32], |policy| policy.hash));
        count(&mut hash, self.uses.len());
        for (serial, uses) in &self.uses {
            hash.update(serial.as_bytes());
            hash.update(uses.to_be_bytes());
        }
        count(&mut hash, self.cancelled.len());
        self.cancelled.iter().for_each(|serial| hash.update(serial.as_bytes()));
        hash.finalize().into()
    }
}

fn count(hash: &mut Sha512_256, items: usize) {
    hash.update(u64::try_from(items).unwrap_or(u64::MAX).to_be_bytes());
}

fn text(hash: &mut Sha512_256, text: &str) {
    count(hash, text.len());
    hash.update(text.as_bytes());
}
