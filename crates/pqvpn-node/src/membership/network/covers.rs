// SPDX-License-Identifier: MIT OR Apache-2.0
//! Covers: the secrets that members' places in the DHT follow from, and their renewal when somebody was put out.
//!
//! A cover names the statements its issuer knew. Whoever does not hold all of them neither takes it nor passes it on, so
//! everybody who passes it on knows everybody whom its issuer knew to be out, and gives it to none of them. A cover is good
//! if it knows of every revocation in force and an admin of now made it; of the good ones the newest is used. Before the
//! first revocation the secret of the genesis is.
//!
//! An admin may be a thief. So a number says no more than what the cover knows, good covers are kept before all others, and
//! those of who is no admin any more after all others: nobody can fill the places that the next good one needs.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::identity::Identity;
use pqvpn_wire::network::{Act, Bundle, Cover, CoverSecret, StatementId, cover::MAX_AFTER};

use super::{Network, extra_key, records::MAX_SKEW_MS};
use crate::{
    entropy,
    membership::{blinded::Blind, store::Change},
};

/// Covers kept: the one in use, and those that it or others may have been used before.
const MAX_COVERS: usize = 4;
/// Secrets under which a member is looked for.
const MAX_LOOKED: usize = 3;
/// What a newer cover replaced is read under for so long, in ms: whoever was away may say where it is under the old one.
const GRACE_MS: u64 = 30 * 24 * 3_600_000;
/// The admin on duty waits so long for the cover of the one that revoked.
const DUE: Duration = Duration::from_secs(5);

/// What our place in the DHT follows from.
#[derive(Debug, Clone, Default)]
pub(super) enum InUse {
    /// Nobody was put out.
    #[default]
    Genesis,
    Cover(Arc<Cover>),
    /// Whatever is held is known to somebody who was put out: nothing new is said until an admin gives another.
    Nothing,
}

/// The covers of a network.
#[derive(Debug, Default)]
pub(super) struct Covers {
    /// In order of rank.
    pub(super) held: Vec<Arc<Cover>>,
    pub(super) in_use: InUse,
    /// Statements or covers have come since that was found out.
    pub(super) stale: bool,
    /// Since when there is nothing to use.
    pub(super) lacking: Option<Instant>,
}

impl Network {
    /// Finds out which cover is used, if that may have changed.
    pub(in crate::membership) fn look_at_covers(&mut self, now: Instant) {
        if !std::mem::take(&mut self.covers.stale) {
            return;
        }
        let none_revoked = self.constitution.view().revoked.is_empty();
        self.covers.in_use = match self.rank_covers() {
            Some(cover) => InUse::Cover(cover),
            None if none_revoked => InUse::Genesis,
            None => InUse::Nothing,
        };
        let lacks = matches!(self.covers.in_use, InUse::Nothing);
        self.covers.lacking = lacks.then(|| self.covers.lacking.unwrap_or(now));
    }

    /// Puts the covers in order: the good ones, then those of admins of now, each newest first. Gives the first, if good.
    fn rank_covers(&mut self) -> Option<Arc<Cover>> {
        let view = self.constitution.view();
        let revoked: Vec<StatementId> = view.revoked.values().map(|revocation| revocation.statement).collect();
        let rank = |cover: &Arc<Cover>| {
            let is_admins = view.is_admin(&cover.issuer());
            let is_good = is_admins && self.constitution.are_under(&revoked, cover.after());
            (is_good, is_admins, cover.number(), cover.id())
        };
        let mut ranked: Vec<_> = self.covers.held.drain(..).map(|cover| (rank(&cover), cover)).collect();
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        let best = ranked.first().filter(|((is_good, ..), _)| *is_good).map(|(_, cover)| Arc::clone(cover));
        self.covers.held = ranked.into_iter().map(|(_, cover)| cover).collect();
        best
    }

    /// The number of a cover that knows these statements, and the highest that is believed of one: one more than the
    /// greatest `seq`. So whoever knows more can always make a newer one.
    fn cover_number(&self, after: &[StatementId]) -> u64 {
        let seqs = after.iter().filter_map(|id| self.constitution.get(id)).map(|statement| statement.body().seq);
        seqs.max().unwrap_or(0).saturating_add(1)
    }

    /// Draws a cover if there is none to use and we may; `at_once`: we have just put somebody out.
    pub(in crate::membership) fn cover(&mut self, identity: &Identity, now: super::Moment, at_once: bool) {
        self.look_at_covers(now.mono);
        let due = self.covers.lacking.is_some_and(|since| at_once || now.mono >= since + DUE);
        if !due || !self.am_admin() || !self.am_member(now.unix_ms) {
            return;
        }
        let (after, secret) = (self.constitution.tips_within(MAX_AFTER), CoverSecret::from_bytes(entropy::bytes()));
        let number = self.cover_number(&after);
        match Cover::sign(self.id, (number, now.unix_ms), after, secret, identity) {
            Ok(cover) => drop(self.keep_cover(Arc::new(cover))),
            Err(error) => tracing::warn!(%error, network = %self.head.name, "no cover is made"),
        }
        self.look_at_covers(now.mono);
        // Should tips be too many for one to know all, an admin's next statement stands on them.
        if matches!(self.covers.in_use, InUse::Nothing) {
            self.covers.lacking = Some(now.mono);
        }
    }

    /// When the admin on duty has to draw one.
    pub(in crate::membership) fn cover_due(&self) -> Option<Instant> {
        self.covers.lacking.filter(|_| self.am_admin()).map(|since| since + DUE)
    }

    /// Another admin is on duty; it may be gone when this is looked at again.
    pub(in crate::membership) fn postpone_cover(&mut self, now: Instant) {
        self.covers.lacking = self.covers.lacking.map(|_| now);
    }

    /// Believes a cover that an admin of now made, if we know all that its issuer knew; says whether it is news.
    pub(super) fn absorb_cover(&mut self, now_ms: u64, cover: Arc<Cover>) -> bool {
        let id = cover.id();
        if self.covers.held.iter().any(|held| held.id() == id) {
            return false;
        }
        if !cover.after().iter().all(|id| self.constitution.contains(id)) {
            self.counters.early_covers += 1;
            return false;
        }
        let view = self.constitution.view();
        let signed = view.admins.get(&cover.issuer()).is_some_and(|key| cover.verify(key));
        let (late_ms, highest) = (now_ms.saturating_add(MAX_SKEW_MS), self.cover_number(cover.after()));
        if cover.network() != self.id || !signed || cover.at_ms() > late_ms || cover.number() > highest {
            self.counters.bad_covers += 1;
            return false;
        }
        self.keep_cover(cover)
    }

    pub(super) fn keep_cover(&mut self, cover: Arc<Cover>) -> bool {
        self.covers.held.push(Arc::clone(&cover));
        self.rank_covers();
        for old in self.covers.held.split_off(self.covers.held.len().min(MAX_COVERS)) {
            if *old == *cover {
                return false;
            }
            self.changes.push(Change::Extra(self.id, extra_key(b'c', &old.id()), None));
        }
        let bundle = Bundle { covers: vec![Arc::clone(&cover)], ..Bundle::default() };
        self.changes.push(Change::Extra(self.id, extra_key(b'c', &cover.id()), Some(bundle.encode())));
        self.news.bundle.covers.push(cover);
        self.news.bundle.covers.truncate(pqvpn_wire::network::message::MAX_BUNDLE_COVERS);
        (self.covers.stale, self.dirty) = (true, true);
        true
    }

    /// Takes covers over from our own disk.
    pub(super) fn load_covers(&mut self, covers: Vec<Arc<Cover>>) {
        self.covers.held.extend(covers);
        self.covers.stale = true;
    }

    /// The one in use, for members that lack it.
    pub(super) fn cover_in_use(&self) -> Option<&Arc<Cover>> {
        if let InUse::Cover(cover) = &self.covers.in_use { Some(cover) } else { None }
    }

    /// What our place in the DHT follows from; none where that could only be what somebody knows who was put out.
    pub(in crate::membership) fn blind(&self) -> Option<Blind> {
        match &self.covers.in_use {
            InUse::Genesis => self.first_blind(),
            InUse::Cover(cover) => Some(Blind::new(cover.secret().expose(), self.id)),
            InUse::Nothing => None,
        }
    }

    /// What the places of others may follow from: what is used, then what was used lately.
    pub(in crate::membership) fn blinds(&self, now_ms: u64) -> Vec<Blind> {
        let in_use = self.cover_in_use().map(|cover| cover.id());
        let mut blinds: Vec<Blind> = self.blind().into_iter().collect();
        // Something that was replaced is as old as what replaced it.
        let mut replaced_ms = None;
        let is_late = |replaced_ms: Option<u64>| replaced_ms.is_some_and(|at| now_ms.saturating_sub(at) > GRACE_MS);
        for cover in &self.covers.held {
            if Some(cover.id()) != in_use && !is_late(replaced_ms) {
                blinds.push(Blind::new(cover.secret().expose(), self.id));
            }
            replaced_ms = Some(cover.at_ms());
        }
        if !matches!(self.covers.in_use, InUse::Genesis) && !is_late(replaced_ms) {
            blinds.extend(self.first_blind());
        }
        blinds.truncate(MAX_LOOKED);
        blinds
    }

    fn first_blind(&self) -> Option<Blind> {
        let genesis = self.constitution.get(&StatementId::from_bytes(*self.id.as_bytes()))?;
        let Act::Genesis(genesis) = &genesis.body().act else { return None };
        Some(Blind::new(&genesis.secret, self.id))
    }
}
