// SPDX-License-Identifier: MIT OR Apache-2.0
//! One network as this node holds it: constitution, records, invites, who waits. Pure: no IO, time is an argument.
//!
//! What changes is noted twice: as [`Change`]s for the disk and as news for the others; the driver takes both away.

mod acts;
mod blame;
mod contest;
mod counters;
mod covers;
mod endpoints;
mod homes;
mod joins;
mod names;
mod onward;
mod own_disk;
mod records;
mod reports;
mod rotation;
mod shed;
mod sync;
mod views;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_trust::{Constitution, Event, Inserted, Presence, Refusal, StatementVerifier};
use pqvpn_wire::network::{
    Bundle, MemberRecord, NetworkId, PendingJoin, Serial, SignedInvite, Statement, StatementId, message::MAX_IDS,
};

use super::{
    overlay::Reach,
    presence::Lives,
    store::{Change, Head, Kept, Seen},
};
use crate::clock;

pub(super) use crate::allowance::Allowance;
use blame::{Blame, MAX_FALSE, Witness};
pub(super) use counters::Counters;
pub(super) use joins::{JoinFacts, Judged, refusal_error};
pub(super) use names::{find_member, hex, is_prefix};
pub(super) use onward::{Onward, Rests};
pub(super) use own_disk::constitution;
use own_disk::constitution_kept;
use shed::tellable;
pub(super) use sync::Lacks;
use sync::Proofs;

/// Invites kept; of more, those that end first are dropped.
pub(super) const MAX_INVITES: usize = 256;
/// Joins that may wait for an admin's word.
pub(super) const MAX_PENDING: usize = 64;
/// And by one invite.
pub(super) const MAX_PENDING_PER_INVITE: usize = 16;
/// What has ended is remembered for so long, so that whoever comes late is told why.
const REMEMBER_MS: u64 = 7 * 24 * 3_600_000;
/// How long sessions wait for the first word of another member after a start.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A node that did not look at the clock for so long was not listening, in ms; it looks every 30 s at least.
const LISTENING_GAP_MS: u64 = 90_000;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) mono: Instant,
    /// Ms since 1970.
    pub(super) unix_ms: u64,
}

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        Self { mono: clock::now(), unix_ms: clock::unix_millis() }
    }
}

/// What another member said last.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// Its head then.
    pub(super) head: [u8; 32],
    pub(super) at: Instant,
    /// How far its clock seemed ahead of ours, in ms.
    pub(super) ahead_ms: Option<i64>,
}

/// One network.
pub(super) struct Network {
    pub(super) id: NetworkId,
    pub(super) own: PeerId,
    pub(super) constitution: Constitution,
    pub(super) head: Head,
    /// The newest record of each member, our own among them.
    pub(super) records: BTreeMap<PeerId, Arc<MemberRecord>>,
    pub(super) invites: BTreeMap<Serial, SignedInvite>,
    /// When invites were made, of those made here since the start; ms since 1970.
    pub(super) made: BTreeMap<Serial, u64>,
    pub(super) pending: BTreeMap<PeerId, PendingJoin>,
    /// Where members were reached.
    pub(super) seen: BTreeMap<PeerId, Seen>,
    /// Where members announce themselves on the local network, or were found by other means; not kept.
    pub(super) hints: BTreeMap<PeerId, Vec<std::net::SocketAddr>>,
    pub(super) reach: Reach,
    /// Members that spoke to us since the start.
    pub(super) heard: BTreeMap<PeerId, Heard>,
    pub(super) started: Instant,
    /// The same, ms since 1970.
    pub(super) started_ms: u64,
    /// When we last agreed with another member on everything.
    pub(super) synced: Option<Instant>,
    /// As many have said so since the start as sessions wait for.
    pub(super) confirmed: bool,
    /// Events of late that concern this node, for people; newest last.
    pub(super) lately: Vec<(u64, crate::snapshot::HealthItem)>,
    /// Statements named as parents that nobody has sent yet.
    pub(super) missing: BTreeSet<StatementId>,
    /// Somebody else uses our identity: when that was seen last, ms since 1970.
    pub(super) twin: Option<u64>,
    /// Who is online.
    pub(super) lives: Lives,
    /// Members that have nothing to tell us, since the start.
    pub(super) agreed: BTreeSet<PeerId>,
    /// The secrets that places in the DHT follow from.
    covers: covers::Covers,
    /// Proofs for those that were put out.
    pub(super) proofs: Proofs,
    /// How often members may send us on to admins.
    pub(super) sent_on: Allowance,
    /// The twin is to be told once that we are here as well.
    pub(super) answers_twin: bool,
    pub(super) counters: Counters,
    /// When an all-out comparison with a peer was made last.
    pub(super) merged: BTreeMap<PeerId, Instant>,
    pub(super) rests: Rests,
    /// For the disk.
    pub(super) changes: Vec<Change>,
    /// For the others.
    pub(super) news: News,
    /// The view may have changed since it was shown.
    pub(super) dirty: bool,
    /// Sessions could start when that was last looked at.
    pub(super) was_ready: bool,
    /// When the view changes by time alone, ms since 1970.
    pub(super) next_change: Option<u64>,
    /// Joins that may be looked at.
    pub(super) joins: Allowance,
    /// Since when this node has listened without a gap, and when that was last looked at, ms since 1970.
    pub(super) listening: (u64, u64),
    /// When each member has said too much of itself.
    pub(super) talk: BTreeMap<PeerId, Allowance>,
    /// Members that passed on what is false.
    pub(super) blamed: BTreeMap<PeerId, Blame>,
    /// The checkpoint under which signatures were shed last, and when, ms since 1970.
    pub(super) shed_under: Option<(StatementId, u64)>,
    /// Introductions that may be looked at.
    pub(super) introductions: Proofs,
}

/// What to tell others, and who need not hear it because it came from there.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) bundle: Bundle,
    pub(super) from: Option<PeerId>,
}

/// Where a bundle led.
#[derive(Debug, Default)]
pub(super) struct Absorbed {
    /// Something was new.
    pub(super) news: bool,
    /// What happened to members and admins.
    pub(super) events: Vec<Event>,
}

impl Network {
    /// A network around its constitution, as founded or joined just now.
    pub(super) fn new(own: PeerId, constitution: Constitution, head: Head, now: Moment) -> Self {
        let id = constitution.id();
        Self {
            id,
            own,
            constitution,
            head,
            records: BTreeMap::new(),
            invites: BTreeMap::new(),
            made: BTreeMap::new(),
            pending: BTreeMap::new(),
            seen: BTreeMap::new(),
            hints: BTreeMap::new(),
            reach: Reach::default(),
            heard: BTreeMap::new(),
            started: now.mono,
            started_ms: now.unix_ms,
            synced: None,
            confirmed: false,
            lately: Vec::new(),
            missing: BTreeSet::new(),
            twin: None,
            lives: Lives::default(),
            agreed: BTreeSet::new(),
            covers: covers::Covers { stale: true, ..covers::Covers::default() },
            proofs: Proofs::default(),
            sent_on: Allowance::default(),
            answers_twin: false,
            counters: Counters::default(),
            merged: BTreeMap::new(),
            rests: Rests::default(),
            changes: Vec::new(),
            news: News::default(),
            dirty: true,
            was_ready: false,
            next_change: None,
            joins: Allowance::default(),
            listening: (now.unix_ms, now.unix_ms),
            talk: BTreeMap::new(),
            blamed: BTreeMap::new(),
            shed_under: None,
            introductions: Proofs::default(),
        }
    }

    /// Notes that this node is awake; after a gap (suspended, clock changed) silence is counted anew.
    pub(super) fn note_awake(&mut self, now_ms: u64) {
        let (since, last) = self.listening;
        let since = if now_ms.abs_diff(last) > LISTENING_GAP_MS { now_ms } else { since };
        self.listening = (since, now_ms);
    }

    /// Whether this node itself would have heard a member that was silent for so long, in s.
    pub(super) fn has_listened_for(&self, now_ms: u64, silence_s: u32) -> bool {
        now_ms.saturating_sub(self.listening.0) > u64::from(silence_s) * 1000
    }

    /// Whether the peer was put out, or its time is over; one that was only silent may speak again.
    pub(super) fn is_out(&self, now_ms: u64, peer: &PeerId) -> bool {
        let member = self.constitution.view().members.get(peer);
        self.put_out_by(peer).is_some() || member.is_some_and(|member| member.expired(now_ms))
    }

    /// The statement that put the peer out: it was revoked, or goes on under another key.
    pub(super) fn put_out_by(&self, peer: &PeerId) -> Option<StatementId> {
        let revoked = self.constitution.view().revoked.get(peer).map(|revocation| revocation.statement);
        revoked.or_else(|| self.constitution.rotated_by(peer))
    }

    /// A network as it was kept on disk. What was checked when it came is not checked again; its ids are.
    ///
    /// # Errors
    /// Why nothing of it can be used.
    pub(super) fn load(own: PeerId, id: NetworkId, kept: Kept, now: Moment) -> Result<Self, String> {
        let head = kept.head.ok_or_else(|| kept.unread.unwrap_or_else(|| "its head is missing".to_owned()))?;
        let mut statements = Vec::new();
        for bytes in &kept.statements {
            statements.push(Statement::decode_kept(bytes).map_err(|error| error.to_string())?);
        }
        statements.sort_by_key(|statement| statement.body().seq);
        let constitution = constitution_kept(&id, statements)?;
        let mut network = Self::new(own, constitution, head, now);
        for bytes in &kept.records {
            let Ok(record) = MemberRecord::decode(bytes) else { continue };
            network.records.insert(record.peer(), Arc::new(record));
        }
        for bytes in &kept.extras {
            let Ok(bundle) = Bundle::decode(bytes) else { continue };
            network.invites.extend(bundle.invites.into_iter().map(|invite| (invite.serial(), invite)));
            network.load_covers(bundle.covers);
            network.pending.extend(bundle.pending.into_iter().map(|pending| (pending.key.peer_id(), pending)));
        }
        network.seen = kept.seen.into_iter().collect();
        network.shed(now.unix_ms);
        Ok(network)
    }

    fn insert(&mut self, statement: Statement, verifier: &dyn StatementVerifier) -> Result<Inserted, Refusal> {
        let id = statement.id();
        let inserted = self.constitution.insert(statement, verifier)?;
        self.note_inserted(id, &inserted);
        Ok(inserted)
    }

    fn note_inserted(&mut self, id: StatementId, inserted: &Inserted) {
        match inserted {
            Inserted::New { adopted } => {
                self.keep_statement(id);
                adopted.iter().for_each(|id| self.keep_statement(*id));
            }
            Inserted::Merged => self.keep_statement(id),
            Inserted::Restored => self.write_statement(id),
            Inserted::Waiting { adopted, .. } => adopted.iter().for_each(|id| self.keep_statement(*id)),
            Inserted::Known => {}
        }
    }

    /// Has these asked for by name, as far as there is room: what waits here is not, but what that waits for.
    pub(super) fn miss(&mut self, ids: &[StatementId]) {
        self.missing.retain(|id| !self.constitution.waits(id));
        let room = MAX_IDS.saturating_sub(self.missing.len());
        self.missing.extend(self.constitution.lacking(ids).into_iter().take(room));
    }

    fn keep_statement(&mut self, id: StatementId) {
        let Some(statement) = self.constitution.get(&id) else { return };
        self.missing.remove(&id);
        self.changes.push(Change::Statement(self.id, *id.as_bytes(), statement.encode()));
        self.news.bundle.statements.push(tellable(statement));
        (self.dirty, self.covers.stale) = (true, true);
    }

    fn write_statement(&mut self, id: StatementId) {
        let Some(statement) = self.constitution.get(&id) else { return };
        self.changes.push(Change::Statement(self.id, *id.as_bytes(), statement.encode()));
    }

    /// Writes every statement down, as after a join.
    pub(super) fn keep_all(&mut self) {
        for statement in self.constitution.after(&[], usize::MAX).statements {
            self.changes.push(Change::Statement(self.id, *statement.id().as_bytes(), statement.encode()));
        }
        self.dirty = true;
    }

    /// Writes the small head down.
    pub(super) fn keep_head(&mut self) {
        self.changes.push(Change::Head(self.id, self.head.clone()));
        self.dirty = true;
    }

    /// Takes in what another member sent; nothing of it is believed that is not signed by whom it must be.
    pub(super) fn absorb(&mut self, now_ms: u64, from: Option<PeerId>, bundle: Bundle) -> Absorbed {
        let before = self.view_before(&bundle);
        self.constitution.keep_all(self.am_admin());
        let mut absorbed = Absorbed::default();
        // Evaluated once, however many came: a member must not make everybody evaluate all again for each of them.
        let ids: Vec<StatementId> = bundle.statements.iter().map(|statement| statement.id()).collect();
        let witness = Witness::of(&bundle.statements);
        let statements = bundle.statements.into_iter().map(Arc::unwrap_or_clone);
        let answers = self.constitution.insert_all(statements, &witness);
        let mut lacking = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            if let Ok(inserted) = &answer {
                self.note_inserted(id, inserted);
            }
            match answer {
                Ok(Inserted::New { .. } | Inserted::Merged | Inserted::Restored) => absorbed.news = true,
                // Nothing of a statement that waits is checked yet: anybody can name any parents.
                Ok(Inserted::Waiting { missing, adopted }) => {
                    absorbed.news |= !adopted.is_empty();
                    lacking.extend(missing);
                }
                Ok(Inserted::Known) => {}
                Err(Refusal::ForeignNetwork) => self.counters.foreign_statements += 1,
                Err(_) => self.counters.bad_statements += 1,
            }
        }
        self.miss(&lacking);
        let before_false = self.counters.false_signatures;
        self.counters.false_signatures += u64::from(witness.wrong());
        let too_false = |network: &Self| network.counters.false_signatures - before_false >= u64::from(MAX_FALSE);
        for record in bundle.records {
            absorbed.news |= !too_false(self) && self.absorb_record(clock::now(), now_ms, record);
        }
        for invite in bundle.invites {
            absorbed.news |= !too_false(self) && self.absorb_invite(now_ms, invite);
        }
        for pending in bundle.pending {
            absorbed.news |= !too_false(self) && self.absorb_pending(now_ms, pending);
        }
        if let Some(from) = from {
            self.blame(from, self.counters.false_signatures - before_false);
        }
        for cover in bundle.covers {
            absorbed.news |= self.absorb_cover(now_ms, cover);
        }
        if absorbed.news {
            self.news.from = from;
            absorbed.events = before.map_or_else(Vec::new, |before| self.on_change(&before));
            self.prune(now_ms);
        }
        absorbed
    }

    /// Drops what is of no use any more.
    pub(super) fn prune(&mut self, now_ms: u64) {
        let view = self.constitution.view();
        let useless = |invite: &SignedInvite| {
            let invite = invite.invite();
            !view.is_admin(&invite.issuer) || now_ms.saturating_sub(REMEMBER_MS) > invite.not_after_ms
        };
        let over: Vec<Serial> =
            self.invites.iter().filter(|(_, invite)| useless(invite)).map(|(serial, _)| *serial).collect();
        let answered = |(peer, pending): (&PeerId, &PendingJoin)| {
            let done = self.is_member(now_ms, peer) || !view.is_admin(&pending.via);
            (done || now_ms.saturating_sub(REMEMBER_MS) > pending.asked_ms).then_some(*peer)
        };
        let done: Vec<PeerId> = self.pending.iter().filter_map(answered).collect();
        let gone: Vec<PeerId> = self.records.keys().filter(|peer| !view.members.contains_key(*peer)).copied().collect();
        let members: BTreeSet<PeerId> = view.members.keys().copied().collect();
        for serial in over {
            self.drop_invite(&serial);
        }
        for peer in done {
            self.drop_pending(&peer);
        }
        for peer in gone {
            self.records.remove(&peer);
            self.changes.push(Change::Record(self.id, peer, None));
        }
        self.forget_places(&members);
        self.reach.retain(&members);
        self.lives.retain(&members);
        self.heard.retain(|peer, _| members.contains(peer));
        self.hints.retain(|peer, _| members.contains(peer));
        self.merged.retain(|peer, _| members.contains(peer));
        self.rests.retain(&members);
        self.talk.retain(|peer, _| members.contains(peer));
        self.blamed.retain(|peer, _| members.contains(peer));
        self.shed(now_ms);
    }

    /// What is known of the life of a member from its own words.
    pub(super) fn presence(&self, now_ms: u64, peer: &PeerId) -> Presence {
        let draft = self.records.get(peer).map(|record| record.draft());
        Presence { now_ms, record_ms: draft.map(|draft| draft.issued_ms), left: draft.is_some_and(|draft| draft.left) }
    }

    /// Whether the peer is a member now.
    pub(super) fn is_member(&self, now_ms: u64, peer: &PeerId) -> bool {
        self.constitution.view().is_member(peer, &self.presence(now_ms, peer))
    }

    /// Whether this node is a member now, as far as it knows.
    pub(super) fn am_member(&self, now_ms: u64) -> bool {
        // Our own silence is no end: whoever comes back after a night says something at once.
        let presence = Presence { now_ms, record_ms: Some(now_ms), left: false };
        self.constitution.view().is_member(&self.own, &presence)
    }

    /// Whether this node may sign.
    pub(super) fn am_admin(&self) -> bool {
        self.constitution.view().is_admin(&self.own)
    }

    /// Everybody who is a member now, but us.
    pub(super) fn others(&self, now_ms: u64) -> Vec<PeerId> {
        let view = self.constitution.view();
        let live = view.live_members(|peer| self.presence(now_ms, peer));
        live.map(|member| member.peer).filter(|peer| *peer != self.own).collect()
    }

    /// Members that seem to be there: the ring of the gossip.
    pub(super) fn ring(&self, now_ms: u64) -> Vec<PeerId> {
        self.others(now_ms).into_iter().filter(|peer| self.reach.seems_there(peer)).collect()
    }
}

/// SHA-256 over parts, each with its length before it.
pub(super) fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Key of an invite or a waiting join on disk.
pub(super) fn extra_key(kind: u8, name: &[u8]) -> [u8; 16] {
    let digest = digest_of([[kind].as_slice(), name]);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
pub(super) mod tests;
