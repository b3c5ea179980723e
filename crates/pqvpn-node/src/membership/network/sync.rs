// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two members compare and send each other until they hold the same.
//!
//! Each tells digests of what it holds; whoever sees a difference pulls what it lacks. Both see it, so both pull, and
//! nobody has to know what the other lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{
    Beat, Bundle, MemberRecord, NetRequest, NetResponse, Statement, StatementId, SyncState,
    cover::MAX_COVER_LEN,
    message::{MAX_BUNDLE, MAX_BUNDLE_SMALL, MAX_IDS},
};

use super::{Allowance, Heard, Lives, Moment, Network, Onward, digest_of};

/// Bytes of one answer: what is around it must fit into a message as well.
const MAX_ANSWER: usize = 440 * 1024;
/// An all-out comparison of signatures with one member happens at most so often.
const MERGE_AGAIN: Duration = Duration::from_secs(60);

/// Members whose word is enough for sessions to start.
const ENOUGH: usize = 2;
/// Statements sent to whoever was put out without being asked.
const FAREWELL_STATEMENTS: usize = 32;
/// Proofs for those that were put out: so many at once, and one more each time this passes; for all, and for each.
const PROOF_BURST: u32 = 64;
const PROOF_PERIOD: Duration = Duration::from_millis(500);
const PROOF_BURST_EACH: u32 = 8;
const PROOF_PERIOD_EACH: Duration = Duration::from_secs(4);
/// Who asked of late is remembered of so many.
const MAX_ASKERS: usize = 256;

/// How often proofs are given, which are long, or introductions looked at, which takes time: one that asks all the time must
/// not keep them from the others.
#[derive(Debug, Default)]
pub(in crate::membership) struct Proofs {
    all: Allowance,
    each: BTreeMap<PeerId, Allowance>,
}

impl Proofs {
    pub(in crate::membership) fn take(&mut self, now: Instant, peer: &PeerId) -> bool {
        if !self.each.contains_key(peer) && self.each.len() >= MAX_ASKERS {
            self.each.retain(|_, asked| !asked.is_whole(now));
        }
        if !self.each.contains_key(peer) && self.each.len() >= MAX_ASKERS {
            return false;
        }
        let own = self.each.entry(*peer).or_default().take(now, PROOF_BURST_EACH, PROOF_PERIOD_EACH);
        own && self.all.take(now, PROOF_BURST, PROOF_PERIOD)
    }
}

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
    /// What this node holds, in short, and of whom it has heard.
    pub(in crate::membership) fn state_at(&self, now: Moment) -> SyncState {
        let members = self.constitution.view().members.keys();
        let alive = self.lives.tell(now.mono, &self.own, members);
        SyncState { sent_ms: now.unix_ms, alive, ..self.state() }
    }

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
        let cover = self.cover_in_use().map(|cover| cover.id());
        let cover = cover.as_ref().map(<[u8; 32]>::as_slice);
        digest_of(serials.chain(cover).chain(waiting.iter().map(<[u8; 49]>::as_slice)))
    }

    /// What the other may have that we lack.
    pub(in crate::membership) fn lacks(&self, now: Instant, peer: &PeerId, theirs: &SyncState) -> Lacks {
        let fresh = self.merged.get(peer).is_none_or(|last| now >= *last + MERGE_AGAIN);
        let unknown = theirs.tips.iter().any(|tip| !self.constitution.contains(tip));
        // Anybody can have us miss what nobody holds: that says nothing of what this one holds.
        let statements = unknown || !self.missing.is_empty();
        let restore = !unknown && fresh && self.asks_to_restore(peer);
        let tips = self.constitution.tips_within(MAX_IDS);
        let signers = !unknown && theirs.head != self.constitution.head() && theirs.tips == tips && fresh || restore;
        let records = theirs.records != self.records_digest();
        Lacks { statements, signers, records, invites: theirs.invites != self.invites_digest() }
    }

    /// Asks for what we lack; `page`: how many invites were sent already.
    pub(in crate::membership) fn pull(&self, lacks: Lacks, page: u64) -> SyncState {
        self.pull_on(lacks, page, &Onward::default())
    }

    /// The same behind what waits of the pages before.
    pub(in crate::membership) fn pull_on(&self, lacks: Lacks, page: u64, onward: &Onward) -> SyncState {
        let held = || self.records.iter().map(|(peer, record)| (*peer, record.seq())).collect();
        let mut state = self.state();
        // Who compares signers asks by the same tips.
        if !lacks.signers {
            state.tips = onward.tips(&self.constitution, |most| self.constitution.waymarks(most));
        }
        state.held = lacks.records.then(held);
        let restored = if lacks.signers { self.to_restore() } else { Vec::new() };
        // Neither takes all the room from the other.
        let room = MAX_IDS - restored.len().min(MAX_IDS / 2);
        state.want = self.missing.iter().take(room).copied().chain(restored).take(MAX_IDS).collect();
        if !lacks.invites {
            // Nothing of them is wanted: their digest is taken as ours.
            state.invites = [0; 32];
        }
        state.cursor = Some(page);
        state
    }

    /// What somebody who holds `theirs` lacks, as far as fits and is not shed here; none where that is no help.
    pub(in crate::membership) fn answer(&self, theirs: &SyncState) -> Option<Bundle> {
        let mut left = MAX_ANSWER;
        let wanted: Vec<_> = theirs.want.iter().filter_map(|id| self.constitution.get(id)).collect();
        let missing = self.constitution.told_after(&theirs.tips, left);
        // Without a tip of its own the other lacks just what is missing; with one it may hold that, and asks by name if not.
        let needs_bare = missing.bare && missing.unknown.is_empty();
        if needs_bare || wanted.iter().any(|statement| statement.is_bare()) {
            return None;
        }
        let mut bundle = Bundle { more: missing.more, ..Bundle::default() };
        let own_tips = self.constitution.tips_within(MAX_IDS);
        let signers = if theirs.tips == own_tips && theirs.head != self.constitution.head() {
            self.constitution.multi_signed(theirs.sent_ms / 1000, left)
        } else {
            Vec::new()
        };
        // First what is asked for by name: what comes after may stand on it.
        let mut given = BTreeSet::new();
        for statement in wanted.into_iter().chain(missing.statements).chain(signers) {
            if !given.insert(statement.id()) {
                continue;
            }
            if bundle.statements.len() >= MAX_BUNDLE || statement.encoded_len() > left {
                bundle.more = true;
                break;
            }
            left -= statement.encoded_len();
            bundle.statements.push(statement);
        }
        if bundle.more {
            // Records of members that are not known yet would only be refused.
            return Some(bundle);
        }
        self.answer_records(theirs, &mut bundle, &mut left);
        self.answer_invites(theirs, &mut bundle, &mut left);
        let is_no_help = missing.bare && bundle == Bundle::default();
        (!is_no_help).then_some(bundle)
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
        bundle.covers.extend(self.cover_in_use().filter(|_| *left >= MAX_COVER_LEN).cloned());
        *left = left.saturating_sub(MAX_COVER_LEN);
        // 64 of at most 9 kB each may be more than fits; those left out come by themselves when they change.
        for pending in self.pending.values().take(MAX_BUNDLE_SMALL) {
            if *left < 16 * 1024 {
                return;
            }
            *left -= 16 * 1024;
            bundle.pending.push(pending.clone());
        }
    }

    /// Begins anew, as after a start: what was heard before says nothing of now.
    pub(in crate::membership) fn begin_anew(&mut self, now: Instant) {
        (self.started, self.synced, self.confirmed) = (now, None, false);
        self.agreed.clear();
        self.rests.clear();
        self.lives = Lives::default();
        self.dirty = true;
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
        self.dirty |= self.lives.heard(now.mono, peer);
        // Only of one and the same list can be told by place.
        if theirs.head == self.constitution.head() {
            let members = self.constitution.view().members.keys();
            self.dirty |= self.lives.learn(now.mono, (&self.own, &peer), members, &theirs.alive);
        }
        if self.knows_all(theirs) {
            self.note_agreed(now, peer);
        }
    }

    /// What is said on a quiet link to a peer at `remote`, and the head it is about.
    pub(in crate::membership) fn beat(&self, now: Instant, remote: Option<SocketAddr>) -> ([u8; 32], Beat) {
        let state = self.state();
        let members = self.constitution.view().members.keys();
        let alive = self.lives.tell(now, &self.own, members);
        (state.head, Beat { digest: state.digest(), observed: remote, alive })
    }

    /// Another member holds what we hold, whose head was this, and has heard of these.
    pub(in crate::membership) fn hear_same(&mut self, now: Moment, peer: PeerId, head: [u8; 32], alive: &[u8]) {
        let ahead_ms = self.heard.get(&peer).and_then(|heard| heard.ahead_ms);
        let before = self.heard.insert(peer, Heard { head, at: now.mono, ahead_ms });
        self.reach.reached(&peer);
        self.dirty |= before.is_none() | self.lives.heard(now.mono, peer);
        // The list may have changed while the answer was on its way.
        if head == self.constitution.head() {
            let members = self.constitution.view().members.keys();
            self.dirty |= self.lives.learn(now.mono, (&self.own, &peer), members, alive);
        }
        if self.missing.is_empty() {
            self.note_agreed(now, peer);
        }
    }

    /// Whether nothing the other had said that it holds is missing here.
    pub(in crate::membership) fn knows_all(&self, theirs: &SyncState) -> bool {
        self.missing.is_empty() && theirs.tips.iter().all(|tip| self.constitution.contains(tip))
    }

    /// We hold what this member says that it holds. One that lies about that is not enough for sessions to start: two of
    /// them are, or an admin.
    pub(in crate::membership) fn note_agreed(&mut self, now: Moment, peer: PeerId) {
        self.dirty |= self.synced.is_none() || self.is_head_old(now.mono);
        self.synced = Some(now.mono);
        if self.confirmed {
            return;
        }
        self.agreed.insert(peer);
        let (others, view) = (self.others(now.unix_ms), self.constitution.view());
        let agreed = others.iter().filter(|peer| self.agreed.contains(*peer));
        self.confirmed =
            agreed.clone().count() >= others.len().min(ENOUGH) || agreed.clone().any(|peer| view.is_admin(peer));
        self.dirty |= self.confirmed;
    }

    /// We hold what the network holds: we made it, or were just let in.
    pub(in crate::membership) fn note_synced(&mut self, now: Instant) {
        self.dirty |= self.synced.is_none() || !self.confirmed || self.is_head_old(now);
        (self.synced, self.confirmed) = (Some(now), true);
    }

    /// Whether nothing was heard for so long that people are warned.
    fn is_head_old(&self, now: Instant) -> bool {
        let limit = u64::from(self.constitution.view().params.max_head_age_s);
        self.head_age(now).is_none_or(|age| age.as_secs() > limit)
    }

    /// What proves to a peer that it was put out, as far as fits; `tips`: what it holds.
    pub(in crate::membership) fn proof_for(&self, peer: &PeerId, tips: &[StatementId]) -> Option<Bundle> {
        let proof = self.constitution.proof(&self.put_out_by(peer)?, tips, MAX_ANSWER);
        let mut statements = proof.statements;
        let more = proof.more || statements.len() > MAX_BUNDLE;
        statements.truncate(MAX_BUNDLE);
        Some(Bundle { statements, more, ..Bundle::default() })
    }

    /// Takes one of the proofs that a peer can have.
    pub(in crate::membership) fn may_prove(&mut self, now: Instant, peer: &PeerId) -> bool {
        self.proofs.take(now, peer)
    }

    /// What is sent to a peer that was put out without being asked: the statement, and the nearest it stands on.
    pub(in crate::membership) fn farewell(&self, peer: &PeerId) -> Option<Bundle> {
        let proof = self.constitution.proof(&self.put_out_by(peer)?, &[], usize::MAX).statements;
        let mut left = MAX_ANSWER;
        let fits = |statement: &&Arc<Statement>| {
            let length = statement.encoded_len();
            let fits = length <= left;
            left = left.saturating_sub(length);
            fits
        };
        let mut statements: Vec<_> = proof.iter().rev().take(FAREWELL_STATEMENTS).take_while(fits).cloned().collect();
        statements.reverse();
        Some(Bundle { statements, ..Bundle::default() })
    }

    /// Answers somebody who is no member, and learns nothing but that it was put out, if it was.
    pub(in crate::membership) fn answer_outsider(
        &mut self,
        now: Moment,
        from: &PeerId,
        request: &NetRequest,
    ) -> NetResponse {
        self.counters.not_members += 1;
        if !self.is_out(now.unix_ms, from) {
            return NetResponse::UnknownNetwork;
        }
        let (NetRequest::Sync(theirs), Some(_)) = (request, self.put_out_by(from)) else {
            return NetResponse::NotAMember;
        };
        if !self.proofs.take(now.mono, from) {
            return NetResponse::NotAMember;
        }
        self.proof_for(from, &theirs.tips).map_or(NetResponse::NotAMember, |proof| NetResponse::PutOut(Box::new(proof)))
    }
}

fn line(record: &MemberRecord) -> [u8; 40] {
    let mut line = [0; 40];
    line[..32].copy_from_slice(record.peer().as_bytes());
    line[32..].copy_from_slice(&record.seq().to_be_bytes());
    line
}
