// SPDX-License-Identifier: MIT OR Apache-2.0
//! What everybody should know of identities: who goes on as whom, who is revoked, who signed two truths.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Fact, Refusal, RevocationReason, Rotation, Verifier};

use crate::{Now, counters::Attack, rules::SKEW_MS};

/// Most facts remembered.
pub const MAX_FACTS: usize = 1024;
/// Most subjects whose facts are never displaced.
pub const MAX_PINNED: usize = 256;
/// Longest chain of rotations that is followed.
const MAX_CHAIN: usize = 16;

/// Why a fact was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FactRefusal {
    /// A signature does not hold, or it proves nothing.
    #[error("the fact is not proven")]
    Unproven,
    /// Dated more than 2 minutes ahead.
    #[error("the fact is dated ahead")]
    Future,
    /// Two different successors of this identity are known already; more tell nothing new.
    #[error("the successor is contested already")]
    Contested,
    /// A successor named after the identity was given up as compromised, or caught with two truths.
    #[error("the identity is revoked")]
    Revoked,
    /// No room: every fact kept is about a pinned subject.
    #[error("no room for more facts")]
    Full,
}

impl FactRefusal {
    /// What to count.
    #[must_use]
    pub const fn attack(self) -> Attack {
        match self {
            Self::Unproven => Attack::FactUnproven,
            Self::Future => Attack::FactFuture,
            Self::Contested => Attack::FactContested,
            Self::Revoked => Attack::FactRevoked,
            Self::Full => Attack::FactsFull,
        }
    }

    /// What to answer; a full table answers as if it were busy.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Unproven | Self::Future | Self::Contested => Refusal::Fact,
            Self::Revoked => Refusal::Revoked,
            Self::Full => Refusal::Quota,
        }
    }
}

/// What the facts of one subject come to.
#[derive(Debug, Clone, Default)]
struct Standing {
    revoked: Option<RevocationReason>,
    equivocated: bool,
    successor: Option<PeerId>,
    /// A second, different successor was signed: whoever holds the keys is not alone, so neither is believed.
    contested: bool,
}

#[derive(Debug)]
struct Noted {
    fact: Arc<Fact>,
    bytes: usize,
}

/// Proven facts in the order they arrived, at most [`MAX_FACTS`].
///
/// Identities cost nothing, so anybody can revoke thousands of his own: when there is no room the oldest fact goes, but
/// never one about a pinned subject ([`Facts::pin`]). At most four facts are kept of one subject.
#[derive(Debug)]
pub struct Facts {
    capacity: usize,
    log: BTreeMap<u64, Noted>,
    numbers: BTreeMap<[u8; 32], u64>,
    standings: BTreeMap<PeerId, Standing>,
    pinned: BTreeSet<PeerId>,
    displaced: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Self::new(MAX_FACTS)
    }
}

impl Facts {
    /// Knows nothing; `capacity` facts at most.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            log: BTreeMap::new(),
            numbers: BTreeMap::new(),
            standings: BTreeMap::new(),
            pinned: BTreeSet::new(),
            displaced: 0,
        }
    }

    /// Takes a fact after checking its proof; `true` if it is news that should be passed on.
    ///
    /// # Errors
    /// [`FactRefusal`]; nothing has changed.
    pub fn add(&mut self, now: Now, fact: Arc<Fact>, verifier: &dyn Verifier) -> Result<bool, FactRefusal> {
        let id = fact.id();
        if self.numbers.contains_key(&id) {
            return Ok(false);
        }
        if let Fact::Rotation(rotation) = &*fact
            && !self.is_news(rotation)?
        {
            return Ok(false);
        }
        if dated(&fact).is_some_and(|at| at > now.unix_ms.saturating_add(SKEW_MS)) {
            return Err(FactRefusal::Future);
        }
        if !fact.verify(verifier) {
            return Err(FactRefusal::Unproven);
        }
        self.make_room()?;
        // Numbers grow over restarts as well, so that nobody's memory of where he was points past what is new.
        let number = self.last().saturating_add(1).max(now.unix_ms);
        self.numbers.insert(id, number);
        self.apply(&fact);
        let bytes = fact.encoded_len();
        self.log.insert(number, Noted { fact, bytes });
        Ok(true)
    }

    /// Whether a rotation would change anything, were it proven.
    fn is_news(&self, rotation: &Rotation) -> Result<bool, FactRefusal> {
        let Some(standing) = self.standings.get(&rotation.old) else { return Ok(true) };
        if standing.successor == Some(rotation.new) {
            return Ok(false);
        }
        if standing.contested {
            return Err(FactRefusal::Contested);
        }
        // Who stole the keys would name himself successor. One that was known before stays.
        if standing.equivocated || standing.revoked == Some(RevocationReason::Compromised) {
            return Err(FactRefusal::Revoked);
        }
        Ok(true)
    }

    fn apply(&mut self, fact: &Fact) {
        let standing = self.standings.entry(*fact.subject()).or_default();
        match fact {
            Fact::Rotation(rotation) if standing.successor.is_none() => standing.successor = Some(rotation.new),
            Fact::Rotation(_) => standing.contested = true,
            Fact::Revocation(revocation) => standing.revoked = Some(revocation.reason),
            Fact::Equivocation(_) => standing.equivocated = true,
            _ => {}
        }
    }

    fn make_room(&mut self) -> Result<(), FactRefusal> {
        if self.log.len() < self.capacity {
            return Ok(());
        }
        let oldest = self.log.iter().find(|(_, noted)| !self.pinned.contains(noted.fact.subject()));
        let number = oldest.map(|(number, _)| *number).ok_or(FactRefusal::Full)?;
        if let Some(noted) = self.log.remove(&number) {
            self.numbers.remove(&noted.fact.id());
            self.reassess(noted.fact.subject());
            self.displaced += 1;
        }
        Ok(())
    }

    /// Draws a subject's standing anew from the facts that are left.
    fn reassess(&mut self, subject: &PeerId) {
        self.standings.remove(subject);
        let left: Vec<Arc<Fact>> = self.of(subject).cloned().collect();
        for fact in left {
            self.apply(&fact);
        }
    }

    /// The facts about one subject, oldest first.
    pub fn of<'a>(&'a self, subject: &'a PeerId) -> impl Iterator<Item = &'a Arc<Fact>> + 'a {
        self.log.values().map(|noted| &noted.fact).filter(move |fact| fact.subject() == subject)
    }

    /// Whether an identity is not to be dealt with: revoked by itself, or proven to sign two truths.
    #[must_use]
    pub fn revoked(&self, peer: &PeerId) -> bool {
        self.standings.get(peer).is_some_and(|standing| standing.revoked.is_some() || standing.equivocated)
    }

    /// Whether an identity is proven to have signed two records with one seq.
    #[must_use]
    pub fn equivocated(&self, peer: &PeerId) -> bool {
        self.standings.get(peer).is_some_and(|standing| standing.equivocated)
    }

    /// As whom an identity goes on today: the end of its chain of rotations, if there is one, only one, and it is not
    /// revoked itself.
    #[must_use]
    pub fn successor(&self, peer: &PeerId) -> Option<PeerId> {
        let mut at = *peer;
        for _ in 0..MAX_CHAIN {
            match self.standings.get(&at) {
                Some(Standing { contested: true, .. }) => return None,
                Some(Standing { successor: Some(next), .. }) => at = *next,
                Some(_) | None => return (at != *peer && !self.revoked(&at)).then_some(at),
            }
        }
        None
    }

    /// Keeps facts about this subject from being displaced; `false`: [`MAX_PINNED`] subjects are pinned already.
    pub fn pin(&mut self, subject: PeerId) -> bool {
        if self.pinned.len() >= MAX_PINNED && !self.pinned.contains(&subject) {
            return false;
        }
        self.pinned.insert(subject);
        true
    }

    /// Takes [`Facts::pin`] back.
    pub fn unpin(&mut self, subject: &PeerId) {
        self.pinned.remove(subject);
    }

    /// The facts that arrived after number `cursor`, oldest first, up to `max_bytes` as encoded; and the number to ask
    /// with next time. A cursor from a future that did not happen (a clock set back) starts over.
    #[must_use]
    pub fn after(&self, cursor: u64, max_bytes: usize) -> (u64, Vec<Arc<Fact>>) {
        let mut next = if cursor > self.last() { 0 } else { cursor };
        let (mut used, mut facts) = (0_usize, Vec::new());
        for (number, noted) in self.log.range((Bound::Excluded(next), Bound::Unbounded)) {
            // One that fits no answer at all is passed over, or nothing after it would ever be told.
            if noted.bytes <= max_bytes {
                used = used.saturating_add(noted.bytes);
                if used > max_bytes {
                    break;
                }
                facts.push(Arc::clone(&noted.fact));
            }
            next = *number;
        }
        (next, facts)
    }

    /// Every fact, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Fact>> {
        self.log.values().map(|noted| &noted.fact)
    }

    /// Facts remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Facts displaced by newer ones since the last call ([`Attack::FactsFull`]).
    pub const fn take_displaced(&mut self) -> u64 {
        std::mem::replace(&mut self.displaced, 0)
    }

    fn last(&self) -> u64 {
        self.log.last_key_value().map_or(0, |(number, _)| *number)
    }
}

/// When a fact says it happened; an equivocation carries two records with dates of their own.
fn dated(fact: &Fact) -> Option<u64> {
    match fact {
        Fact::Rotation(rotation) => Some(rotation.at_ms),
        Fact::Revocation(revocation) => Some(revocation.at_ms),
        Fact::Equivocation(_) | _ => None,
    }
}

#[cfg(test)]
mod tests;
