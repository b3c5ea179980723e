// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two members compare and send each other until they hold the same.
//!
//! Each tells digests of what it holds; whoever sees a difference pulls what it lacks. Both see it, so both pull, and
//! nobody has to know what the other lacks.

use std::{sync::Arc, time::Duration, time::Instant};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{
    Bundle, MemberRecord, SyncState,
    message::{MAX_BUNDLE, MAX_BUNDLE_SMALL, MAX_IDS},
};

use super::{Heard, Moment, Network, digest_of};

/// Bytes of one answer: what is around it must fit into a message as well.
const MAX_ANSWER: usize = 440 * 1024;
/// An all-out comparison of signatures with one member happens at most so often.
const MERGE_AGAIN: Duration = Duration::from_secs(60);

/// What another holds and we do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::membership) struct Lacks {
    pub(in crate::membership) statements: bool,
    /// Signers of statements that both hold.
    pub(in crate::membership) signers: bool,
    /// Either may be the one that lacks something.
    pub(in crate::membership) records: bool,
    pub(in crate::membership) invites: bool,
}

impl Lacks {
    pub(in crate::membership) const fn any(self) -> bool {
        self.statements || self.signers || self.records || self.invites
    }
}

impl Network {
    /// What this node holds, in short.
    pub(in crate::membership) fn state(&self) -> SyncState {
        let tips = self.constitution.tips_within(MAX_IDS);
        SyncState {
            head: self.constitution.head(),
            tips,
            records: self.records_digest(),
            invites: self.invites_digest(),
            ..SyncState::default()
        }
    }

    fn records_digest(&self) -> [u8; 32] {
        let lines: Vec<[u8; 40]> = self.records.values().map(|record| line(record)).collect();
        digest_of(lines.iter().map(<[u8; 40]>::as_slice))
    }

    fn invites_digest(&self) -> [u8; 32] {
        let serials = self.invites.keys().map(|serial| serial.as_bytes().as_slice());
        let waiting: Vec<[u8; 49]> = self
            .pending
            .iter()
            .map(|(peer, pending)| {
                let mut line = [0; 49];
                line[..32].copy_from_slice(peer.as_bytes());
                line[32..48].copy_from_slice(&pending.ticket);
                line[48] = pending.denied.into();
                line
            })
            .collect();
        digest_of(serials.chain(waiting.iter().map(<[u8; 49]>::as_slice)))
    }

    /// What the other may have that we lack.
    pub(in crate::membership) fn lacks(&self, now: Instant, peer: &PeerId, theirs: &SyncState) -> Lacks {
        let statements = theirs.tips.iter().any(|tip| !self.constitution.contains(tip)) || !self.missing.is_empty();
        let tips = self.constitution.tips_within(MAX_IDS);
        let signers = !statements
            && theirs.head != self.constitution.head()
            && theirs.tips == tips
            && self.merged.get(peer).is_none_or(|last| now >= *last + MERGE_AGAIN);
        let records = theirs.records != self.records_digest();
        Lacks { statements, signers, records, invites: theirs.invites != self.invites_digest() }
    }

    /// Asks for what we lack; `page`: how many invites were sent already.
    pub(in crate::membership) fn pull(&self, lacks: Lacks, page: u64) -> SyncState {
        let held = || self.records.iter().map(|(peer, record)| (*peer, record.seq())).collect();
        let mut state = self.state();
        state.held = lacks.records.then(held);
        state.want = self.missing.iter().take(MAX_IDS).copied().collect();
        if !lacks.invites {
            // Nothing of them is wanted: their digest is taken as ours.
            state.invites = [0; 32];
        }
        state.cursor = Some(page);
        state
    }

    /// What somebody who holds `theirs` lacks, as far as fits.
    pub(in crate::membership) fn answer(&self, theirs: &SyncState) -> Bundle {
        let mut left = MAX_ANSWER;
        let missing = self.constitution.after(&theirs.tips, left);
        let mut bundle = Bundle { more: missing.more, ..Bundle::default() };
        let own_tips = self.constitution.tips_within(MAX_IDS);
        let signers = if theirs.tips == own_tips && theirs.head != self.constitution.head() {
            self.constitution.multi_signed(theirs.sent_ms / 1000, left)
        } else {
            Vec::new()
        };
        let wanted = theirs.want.iter().filter_map(|id| self.constitution.get(id));
        for statement in missing.statements.into_iter().chain(signers).chain(wanted) {
            if bundle.statements.len() >= MAX_BUNDLE || statement.encoded_len() > left {
                bundle.more = true;
                break;
            }
            left -= statement.encoded_len();
            bundle.statements.push(statement);
        }
        if bundle.more {
            // Records of members that are not known yet would only be refused.
            return bundle;
        }
        self.answer_records(theirs, &mut bundle, &mut left);
        self.answer_invites(theirs, &mut bundle, &mut left);
        bundle
    }

    fn answer_records(&self, theirs: &SyncState, bundle: &mut Bundle, left: &mut usize) {
        let Some(held) = &theirs.held else { return };
        let is_newer = |record: &&Arc<MemberRecord>| {
            let known = held.binary_search_by(|(peer, _)| peer.cmp(&record.peer())).ok();
            known.and_then(|at| held.get(at)).is_none_or(|(_, seq)| *seq < record.seq())
        };
        for record in self.records.values().filter(is_newer) {
            if bundle.records.len() >= MAX_BUNDLE || record.encoded_len() > *left {
                bundle.more = true;
                return;
            }
            *left -= record.encoded_len();
            bundle.records.push(Arc::clone(record));
        }
    }

    fn answer_invites(&self, theirs: &SyncState, bundle: &mut Bundle, left: &mut usize) {
        if theirs.invites == [0; 32] || theirs.invites == self.invites_digest() {
            return;
        }
        let page = usize::try_from(theirs.cursor.unwrap_or(0)).unwrap_or(usize::MAX);
        let mut invites = self.invites.values().skip(page);
        for invite in invites.by_ref().take(MAX_BUNDLE_SMALL) {
            let length = invite.encode().len();
            if length > *left {
                bundle.more = true;
                return;
            }
            *left -= length;
            bundle.invites.push(invite.clone());
        }
        bundle.more |= invites.next().is_some();
        if page > 0 {
            return;
        }
        // 64 of at most 9 kB each may be more than fits; those left out come by themselves when they change.
        for pending in self.pending.values().take(MAX_BUNDLE_SMALL) {
            if *left < 16 * 1024 {
                return;
            }
            *left -= 16 * 1024;
            bundle.pending.push(pending.clone());
        }
    }

    /// Notes what another member said; two that hold the same are in sync.
    pub(in crate::membership) fn hear(&mut self, now: Moment, peer: PeerId, theirs: &SyncState) {
        let ahead_ms = (theirs.sent_ms > 0)
            .then(|| i64::try_from(theirs.sent_ms.abs_diff(now.unix_ms)).unwrap_or(i64::MAX))
            .map(|off| if theirs.sent_ms < now.unix_ms { -off } else { off });
        let off_before = self.clock_off().is_some();
        let before = self.heard.insert(peer, Heard { head: theirs.head, at: now.mono, ahead_ms });
        self.reach.reached(&peer);
        self.dirty |= before.is_none() || off_before != self.clock_off().is_some();
        if self.knows_all(theirs) {
            self.note_synced(now.mono);
        }
    }

    /// Whether nothing the other had said that it holds is missing here.
    pub(in crate::membership) fn knows_all(&self, theirs: &SyncState) -> bool {
        self.missing.is_empty() && theirs.tips.iter().all(|tip| self.constitution.contains(tip))
    }

    /// We hold what another member holds.
    pub(in crate::membership) fn note_synced(&mut self, now: Instant) {
        let limit = u64::from(self.constitution.view().params.max_head_age_s);
        if self.head_age(now).is_none_or(|age| age.as_secs() > limit) {
            self.dirty = true;
        }
        self.synced = Some(now);
        self.refused_by.clear();
    }
}

fn line(record: &MemberRecord) -> [u8; 40] {
    let mut line = [0; 40];
    line[..32].copy_from_slice(record.peer().as_bytes());
    line[32..].copy_from_slice(&record.seq().to_be_bytes());
    line
}
