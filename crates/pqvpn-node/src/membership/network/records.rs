// SPDX-License-Identifier: MIT OR Apache-2.0
//! Member records, invites and waiting joins: what is believed of them, and when our own record is due.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_wire::network::{
    Bundle, MAX_ENDPOINTS, MAX_RECORD_LIFE_MS, MemberDraft, MemberRecord, PendingJoin, Serial, SignedInvite,
};

use super::{MAX_INVITES, MAX_PENDING, MAX_PENDING_PER_INVITE, Network, REMEMBER_MS, extra_key};
use crate::membership::{report::InviteState, store::Change};

/// A record is renewed at this age: a quarter of its life, so that three renewals may fail.
pub(in crate::membership) const RENEW_MS: u64 = 6 * 3_600_000;
/// New records of one member that are looked at: so many at once, and one more each time this passes. Members renew
/// theirs every 3 s at most (ephemeral ones), and 2 s after a change of addresses.
const TALK_BURST: u32 = 16;
const TALK_PERIOD: Duration = Duration::from_secs(1);
/// A record signed so lately shows that its owner is there, in ms.
const FRESH_MS: u64 = 20_000;
/// A changed address waits so long for further ones before it is told again, in ms.
const CALM_MS: u64 = 2_000;
/// A second user of our identity is told of for so long after the last sign of it, in ms.
pub(super) const TWIN_MS: u64 = 24 * 3_600_000;
/// How far ahead the clock of another member may be, in ms.
pub(in crate::membership) const MAX_SKEW_MS: u64 = 10 * 60_000;

/// How often a member says something of itself: an ephemeral one more often than it is forgotten.
pub(in crate::membership) fn renewal_ms(ephemeral_s: Option<u32>) -> u64 {
    ephemeral_s.map_or(RENEW_MS, |silence| RENEW_MS.min((u64::from(silence) * 1000 / 3).max(1000)))
}

/// When our record is to be made anew, ms since 1970; now or earlier: at once.
pub(in crate::membership) fn renewal_due(
    current: Option<&MemberDraft>,
    now_ms: u64,
    endpoints: &[SocketAddr],
    ephemeral_s: Option<u32>,
) -> u64 {
    let Some(current) = current.filter(|current| !current.left) else { return now_ms };
    // A clock that was set back leaves records of the future behind; they are not waited for.
    if current.issued_ms > now_ms {
        return now_ms;
    }
    if current.endpoints != endpoints {
        return current.issued_ms + CALM_MS;
    }
    current.issued_ms + renewal_ms(ephemeral_s)
}

impl Network {
    /// When our own record is due.
    pub(in crate::membership) fn own_record_due(&self, now_ms: u64, endpoints: &[SocketAddr]) -> u64 {
        let current = self.records.get(&self.own).map(|record| record.draft());
        let ephemeral = self.constitution.view().members.get(&self.own).and_then(|member| member.ephemeral_s);
        let mut endpoints = &endpoints[..endpoints.len().min(MAX_ENDPOINTS)];
        // Two that correct each other's addresses would never end.
        if let Some(current) = current.filter(|_| self.has_twin(now_ms) && !self.answers_twin) {
            endpoints = &current.endpoints;
        }
        renewal_due(current, now_ms, endpoints, ephemeral)
    }

    /// Signs a new record of our own, with a number that was never used, and takes it in.
    pub(in crate::membership) fn renew(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        endpoints: &[SocketAddr],
        left: bool,
    ) {
        let held = self.records.get(&self.own).map_or(0, |record| record.seq());
        let seq = self.head.seq.max(held).saturating_add(1).max(now_ms);
        let draft = MemberDraft {
            network: self.id,
            seq,
            issued_ms: now_ms,
            not_after_ms: now_ms.saturating_add(MAX_RECORD_LIFE_MS),
            endpoints: endpoints.iter().take(MAX_ENDPOINTS).copied().collect(),
            head: self.constitution.head(),
            left,
        };
        match MemberRecord::sign(draft, identity) {
            Ok(record) => {
                self.head.seq = seq;
                self.answers_twin = false;
                self.keep_head();
                self.keep_record(Arc::new(record));
            }
            Err(error) => tracing::warn!(%error, network = %self.head.name, "our member record cannot be signed"),
        }
    }

    fn keep_record(&mut self, record: Arc<MemberRecord>) {
        self.changes.push(Change::Record(self.id, record.peer(), Some(record.encode())));
        // What could not be told yet may be long.
        self.news.bundle.records.retain(|older| older.peer() != record.peer());
        self.news.bundle.records.push(Arc::clone(&record));
        self.records.insert(record.peer(), record);
        self.dirty = true;
    }

    /// Believes a record that its owner signed for this network, if it is the newest; says whether it is news.
    pub(super) fn absorb_record(&mut self, now: Instant, now_ms: u64, record: Arc<MemberRecord>) -> bool {
        let (peer, draft) = (record.peer(), record.draft());
        let held = self.records.get(&peer);
        if let Some(held) = held {
            if held.seq() == record.seq() && held.draft() == draft {
                return false;
            }
            if held.seq() > record.seq() {
                self.counters.old_records += 1;
                return false;
            }
        }
        let is_legal = draft.network == self.id
            && draft.issued_ms <= now_ms.saturating_add(MAX_SKEW_MS)
            && self.constitution.view().members.contains_key(&peer);
        if !is_legal {
            self.counters.bad_records += 1;
            return false;
        }
        // Each costs everybody a signature check, a write and a message to all neighbours. What is too much now comes
        // with the next comparison, of which then only the newest is left.
        if peer != self.own && !self.talk.entry(peer).or_default().take(now, TALK_BURST, TALK_PERIOD) {
            self.counters.hurried_records += 1;
            return false;
        }
        if !record.verify() {
            self.counters.bad_records += 1;
            self.counters.false_signatures += 1;
            return false;
        }
        if held.is_some_and(|held| held.seq() == record.seq()) {
            // One number, two contents: two daemons share an identity. Everybody keeps what it heard first.
            self.counters.twin_records += 1;
            if peer == self.own {
                self.note_twin(now_ms);
            }
            return false;
        }
        if peer == self.own {
            return self.absorb_own(now_ms, &record);
        }
        let moved = held.is_none_or(|held| held.draft().endpoints != draft.endpoints);
        // Just signed, it is a word of its owner.
        if !draft.left && now_ms.abs_diff(draft.issued_ms) < FRESH_MS {
            self.lives.heard(now, peer);
        }
        self.keep_record(record);
        if moved {
            self.reach.forgive(&peer);
        }
        true
    }

    /// A record of ours that is newer than ours was made by an earlier life of this node, or by a twin. It is kept:
    /// whoever contradicts a twin again and again starts a fight that nobody wins.
    fn absorb_own(&mut self, now_ms: u64, record: &Arc<MemberRecord>) -> bool {
        let (seq, issued_ms) = (record.seq(), record.draft().issued_ms);
        self.head.seq = self.head.seq.max(seq);
        self.keep_head();
        if issued_ms > self.started_ms {
            self.note_twin(now_ms);
            self.keep_record(Arc::clone(record));
            return true;
        }
        // Of an earlier life, whose store was lost: our next one is newer, and is due now.
        self.records.remove(&self.own);
        false
    }

    /// Somebody else uses our identity. It may not know of us: the first time it is answered once, by a record of ours,
    /// and no more.
    pub(in crate::membership) fn note_twin(&mut self, now_ms: u64) {
        self.answers_twin |= !self.has_twin(now_ms);
        self.twin = Some(now_ms);
        self.dirty = true;
    }

    /// Whether a second user of our identity was seen of late.
    pub(super) fn has_twin(&self, now_ms: u64) -> bool {
        self.twin.is_some_and(|seen| now_ms.saturating_sub(seen) < TWIN_MS)
    }

    /// Believes an invite that an admin of now signed; says whether it is news.
    pub(super) fn absorb_invite(&mut self, now_ms: u64, invite: SignedInvite) -> bool {
        if self.invites.contains_key(&invite.serial()) {
            return false;
        }
        let view = self.constitution.view();
        let issuer = view.admins.get(&invite.invite().issuer);
        let signed = issuer.is_some_and(|key| invite.verify(key));
        self.counters.false_signatures += u64::from(issuer.is_some() && !signed);
        if invite.invite().network != self.id || !signed {
            self.counters.bad_invites += 1;
            return false;
        }
        if now_ms.saturating_sub(REMEMBER_MS) > invite.invite().not_after_ms {
            return false;
        }
        self.keep_invite(now_ms, invite)
    }

    /// Keeps an invite; where there are too many, one that cannot be used any more goes, or else the one that ends first.
    /// `false`: that is this one.
    #[must_use]
    pub(in crate::membership) fn keep_invite(&mut self, now_ms: u64, invite: SignedInvite) -> bool {
        let serial = invite.serial();
        self.invites.insert(serial, invite.clone());
        if self.invites.len() > MAX_INVITES {
            self.counters.invites_full += 1;
            let place = |held: &SignedInvite| {
                let is_open = self.invite_state(now_ms, held.invite()) == InviteState::Open;
                (is_open, held.invite().not_after_ms, held.serial())
            };
            let first = self.invites.values().map(place).min();
            if let Some((_, _, first)) = first {
                self.drop_invite(&first);
                if first == serial {
                    return false;
                }
            }
        }
        let bundle = Bundle { invites: vec![invite.clone()], ..Bundle::default() };
        let key = extra_key(b'i', serial.as_bytes());
        self.changes.push(Change::Extra(self.id, key, Some(bundle.encode())));
        self.news.bundle.invites.retain(|older| older.serial() != serial);
        self.news.bundle.invites.push(invite);
        // A flood of them is compared, not told.
        self.news.bundle.invites.truncate(MAX_INVITES);
        self.dirty = true;
        true
    }

    pub(super) fn drop_invite(&mut self, serial: &Serial) {
        self.invites.remove(serial);
        self.made.remove(serial);
        self.changes.push(Change::Extra(self.id, extra_key(b'i', serial.as_bytes()), None));
    }

    /// Believes a waiting join that an admin of now vouches for; says whether it is news.
    pub(super) fn absorb_pending(&mut self, now_ms: u64, pending: PendingJoin) -> bool {
        let peer = pending.key.peer_id();
        // A no holds for its question and all before it; who asks anew later waits again, at every admin.
        let rank = |pending: &PendingJoin| (pending.asked_ms, pending.ticket, pending.denied);
        if self.pending.get(&peer).is_some_and(|held| rank(held) >= rank(&pending)) {
            return false;
        }
        if self.is_member(now_ms, &peer) {
            return false;
        }
        let via = self.constitution.view().admins.get(&pending.via);
        let vouched = via.is_some_and(|key| pending.verify(&self.id, key));
        self.counters.false_signatures += u64::from(via.is_some() && !vouched);
        if !vouched || pending.asked_ms > now_ms.saturating_add(MAX_SKEW_MS) {
            self.counters.bad_pending += 1;
            return false;
        }
        self.keep_pending(pending)
    }

    /// Keeps a waiting join, where there is room: of all, and of those by one invite, the first that asked and were not
    /// denied. So one leaked code does not fill the queue, and admins with full queues keep the same.
    pub(in crate::membership) fn keep_pending(&mut self, pending: PendingJoin) -> bool {
        let peer = pending.key.peer_id();
        let (asked, serial) = (pending.asked_ms, pending.serial);
        let others = || self.pending.iter().filter(|(other, _)| **other != peer);
        let by_code = others().filter(|(_, held)| held.serial == serial);
        let place = |(peer, held): (&PeerId, &PendingJoin)| (held.denied, held.asked_ms, *peer);
        let last = if by_code.clone().count() >= MAX_PENDING_PER_INVITE {
            by_code.map(place).max()
        } else if others().count() >= MAX_PENDING {
            others().map(place).max()
        } else {
            None
        };
        if let Some(last) = last {
            self.counters.pending_full += 1;
            if last <= (pending.denied, asked, peer) {
                return false;
            }
            self.drop_pending(&last.2);
        }
        let bundle = Bundle { pending: vec![pending.clone()], ..Bundle::default() };
        self.changes.push(Change::Extra(self.id, extra_key(b'p', peer.as_bytes()), Some(bundle.encode())));
        self.news.bundle.pending.retain(|older| older.key.peer_id() != peer);
        self.news.bundle.pending.push(pending.clone());
        self.news.bundle.pending.truncate(MAX_PENDING);
        self.pending.insert(peer, pending);
        self.dirty = true;
        true
    }

    pub(super) fn drop_pending(&mut self, peer: &PeerId) {
        self.pending.remove(peer);
        self.changes.push(Change::Extra(self.id, extra_key(b'p', peer.as_bytes()), None));
        self.dirty = true;
    }
}
