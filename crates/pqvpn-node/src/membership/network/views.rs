// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network as the state task needs it, and what is wrong with it.

use std::{net::IpAddr, time::Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_packet::addr::{NetworkHash, ula};
use pqvpn_trust::{Event, Member};
use pqvpn_wire::network::plain;

use super::{
    GRACE, Moment, Network,
    names::name_of,
    records::{MAX_SKEW_MS, TWIN_MS},
};
use crate::{
    membership::report::{MemberView, NetworkState, NetworkView},
    snapshot::{HealthItem, HealthLevel},
};

/// Prefix length of a network's IPv6 addresses.
const V6_PREFIX: u8 = 48;
/// What happened to this node is told for so long, in ms.
const LATELY_MS: u64 = 3_600_000;
/// Events told at most.
const MAX_LATELY: usize = 16;

impl Network {
    pub(in crate::membership) fn pool(&self) -> Ipv4Net {
        self.constitution.view().params.ipv4_pool
    }

    pub(in crate::membership) fn prefix_v6(&self) -> Ipv6Net {
        let hash = NetworkHash::of_network(self.id.as_bytes());
        Ipv6Net::new_assert(ula(hash, &[0; 32]), V6_PREFIX).trunc()
    }

    /// Addresses of a member, IPv6 first.
    pub(in crate::membership) fn addresses(&self, peer: &PeerId, member: Option<&Member>) -> Vec<IpAddr> {
        let hash = NetworkHash::of_network(self.id.as_bytes());
        let v4 = member.and_then(|member| member.ipv4).map(IpAddr::V4);
        std::iter::once(IpAddr::V6(ula(hash, peer.as_bytes()))).chain(v4).collect()
    }

    /// Whether sessions may start.
    pub(in crate::membership) fn is_ready(&self, now: Moment) -> bool {
        self.confirmed || now.mono >= self.started + GRACE || self.others(now.unix_ms).is_empty()
    }

    /// Whether members are spoken to and traffic may flow, as far as the constitution and its people say. That a member
    /// says we are none is no reason: only a statement is.
    pub(in crate::membership) fn is_enabled(&self, now_ms: u64) -> bool {
        self.head.enabled && !self.constitution.view().disabled && self.am_member(now_ms)
    }

    /// How this node stands here.
    pub(in crate::membership) fn standing(&self, now: Moment) -> NetworkState {
        let view = self.constitution.view();
        if view.disabled {
            NetworkState::Disabled
        } else if self.put_out_by(&self.own).is_some() {
            NetworkState::Revoked
        } else if !self.am_member(now.unix_ms) {
            NetworkState::Expired
        } else if !self.head.enabled {
            NetworkState::Down
        } else if self.is_ready(now) {
            NetworkState::Up
        } else {
            NetworkState::Syncing
        }
    }

    /// The whole network for the state task.
    pub(in crate::membership) fn view(&self, now: Moment) -> NetworkView {
        let view = self.constitution.view();
        let live = view.live_members(|peer| self.presence(now.unix_ms, peer));
        let members = live.filter(|member| member.peer != self.own).map(|member| self.member_view(now, member));
        let own = view.members.get(&self.own);
        NetworkView {
            id: self.id,
            name: self.head.name.clone(),
            prefix_v6: self.prefix_v6(),
            pool: self.pool(),
            own: MemberView {
                peer: self.own,
                name: own.map_or_else(String::new, |own| own.name.clone()),
                addresses: self.addresses(&self.own, own),
                endpoints: self
                    .records
                    .get(&self.own)
                    .map(|record| record.draft().endpoints.clone())
                    .unwrap_or_default(),
                online: true,
                admin: view.is_admin(&self.own),
                level_cap: own.map_or(0, |own| own.level_cap),
                tags: own.map(|own| own.tags.clone()).unwrap_or_default(),
            },
            members: members.collect(),
            revoked: view.revoked.keys().copied().collect(),
            ready: self.is_ready(now),
            downs: 0,
            enabled: self.is_enabled(now.unix_ms),
            health: self.health(now),
        }
    }

    pub(super) fn member_view(&self, now: Moment, member: &Member) -> MemberView {
        MemberView {
            peer: member.peer,
            name: member.name.clone(),
            addresses: self.addresses(&member.peer, Some(member)),
            endpoints: self.endpoints(&member.peer),
            online: self.lives.is_online(now.mono, &member.peer),
            admin: self.constitution.view().is_admin(&member.peer),
            level_cap: member.level_cap,
            tags: member.tags.clone(),
        }
    }

    /// When the view changes by time alone, ms since 1970.
    pub(in crate::membership) fn next_change_ms(&self, now_ms: u64) -> Option<u64> {
        let of_member = |member: &Member| {
            let silence = member.ephemeral_s.map(|silence| {
                let heard = self.presence(now_ms, &member.peer).record_ms.unwrap_or(member.added_ms);
                heard.max(member.added_ms).saturating_add(u64::from(silence) * 1000 + 1)
            });
            [member.expires_ms, silence]
        };
        let view = self.constitution.view();
        let changes = view.members.values().flat_map(of_member).flatten();
        // What people are told changes as well.
        let told = self.lately.iter().map(|(at, _)| at.saturating_add(LATELY_MS));
        let told = told.chain(self.twin.map(|seen| seen.saturating_add(TWIN_MS))).chain(self.next_warning_ms(now_ms));
        changes.chain(told).filter(|at| *at > now_ms).min()
    }

    /// Notes what happened to us, for people, and writes all of it to the log.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only what happens to this node is told")]
    pub(in crate::membership) fn note_events(&mut self, now_ms: u64, events: &[Event]) {
        let own = self.own;
        for event in events {
            tracing::info!(network = %self.head.name, ?event, "the constitution changed");
            let item = match event {
                Event::Renamed { peer, from, to } if *peer == own => Some((
                    "member-renamed",
                    format!("this node is called {to} in {}, no longer {from}: the name was taken", self.head.name),
                )),
                Event::Moved { peer, from, to, winner } if *peer == own => {
                    let winner = winner.map_or_else(String::new, |winner| {
                        format!(": {} owns the other", name_of(self.constitution.view(), &winner))
                    });
                    let address = |address: &Option<std::net::Ipv4Addr>| {
                        address.map_or_else(|| "none".to_owned(), |address| address.to_string())
                    };
                    Some((
                        "address-moved",
                        format!(
                            "the IPv4 address of this node in {} is {}, no longer {}{winner}",
                            self.head.name,
                            address(to),
                            address(from)
                        ),
                    ))
                }
                _ => None,
            };
            if let Some((code, text)) = item {
                self.lately.push((now_ms, HealthItem { level: HealthLevel::Warn, code, text }));
            }
        }
        let excess = self.lately.len().saturating_sub(MAX_LATELY);
        self.lately.drain(..excess);
    }

    /// What an operator should know.
    pub(in crate::membership) fn health(&self, now: Moment) -> Vec<HealthItem> {
        let (view, name) = (self.constitution.view(), &self.head.name);
        let mut items = Vec::new();
        let mut say = |level, code, text| items.push(HealthItem { level, code, text });
        if view.disabled {
            say(HealthLevel::Error, "network-disabled", format!("{name} has been disabled for good"));
        } else if let Some(revocation) = view.revoked.get(&self.own) {
            let reason = plain(&revocation.reason);
            let why = if reason.is_empty() { reason } else { format!(": {reason}") };
            let text = format!(
                "{name} has revoked this node{why}; it can come back only under another key (`pqvpn keys rotate`, then a new \
                 code)"
            );
            say(HealthLevel::Error, "network-revoked", text);
        } else if self.constitution.rotated_by(&self.own).is_some() {
            let text = format!("{name}: this node has a key that it was rotated away from, and is no member under it");
            say(HealthLevel::Error, "network-revoked", text);
        } else if !view.members.contains_key(&self.own) {
            let text = format!("{name}: the invite was used by another node at the same time; ask for a new code");
            say(HealthLevel::Error, "network-not-member", text);
        } else if !self.am_member(now.unix_ms) {
            say(HealthLevel::Error, "network-expired", format!("the membership in {name} has ended"));
        }
        if self.has_twin(now.unix_ms) {
            let text = format!(
                "{name}: another daemon uses the identity of this node; stop one of them, or give it an identity of its own"
            );
            say(HealthLevel::Error, "identity-twice", text);
        }
        if let Some(ahead) = self.clock_off() {
            let direction = if ahead > 0 { "behind" } else { "ahead of" };
            let minutes = (ahead.unsigned_abs() + 30_000) / 60_000;
            let heard = self.heard.values().filter(|heard| heard.ahead_ms.is_some()).count();
            // Of two clocks nobody knows which is right.
            let (level, text) = if heard == 1 {
                let text = format!(
                    "{name}: the clocks of this machine and of the only other one heard are {minutes} min apart"
                );
                (HealthLevel::Warn, text)
            } else {
                let text = format!("the clock of this machine is {minutes} min {direction} those of {name}");
                (HealthLevel::Error, text)
            };
            say(level, "clock-off", text);
        }
        let waiting = self.pending.values().filter(|pending| !pending.denied).count();
        if waiting > 0 && view.is_admin(&self.own) {
            let wait = if waiting == 1 { "one waits".to_owned() } else { format!("{waiting} wait") };
            say(HealthLevel::Info, "joins-waiting", format!("{wait} to join {name}: `pqvpn approve`"));
        }
        items.extend(self.warnings(now));
        let lately = self.lately.iter().filter(|(at, _)| now.unix_ms.saturating_sub(*at) < LATELY_MS);
        items.extend(lately.map(|(_, item)| item.clone()));
        items
    }

    pub(in crate::membership) fn head_age(&self, now: Instant) -> Option<std::time::Duration> {
        self.synced.map(|synced| now.saturating_duration_since(synced))
    }

    /// How far the clocks of most others seem ahead of ours, where that is too far, in ms.
    pub(in crate::membership) fn clock_off(&self) -> Option<i64> {
        let mut ahead: Vec<i64> = self.heard.values().filter_map(|heard| heard.ahead_ms).collect();
        ahead.sort_unstable();
        // Of two in the middle the one nearer to ours: half of the others are not most of them.
        let middle = [ahead.len().checked_sub(1)? / 2, ahead.len() / 2].map(|at| ahead.get(at).copied());
        let median = middle.into_iter().flatten().min_by_key(|off| off.unsigned_abs())?;
        (median.unsigned_abs() > MAX_SKEW_MS).then_some(median)
    }
}
