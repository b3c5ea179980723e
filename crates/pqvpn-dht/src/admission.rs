// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has a position, and for which week (security.md 7.1): a proof of work pays for one position of one PeerID.

use std::time::Duration;

use pqvpn_crypto::{
    peer_id::PeerId,
    pow::{self, Difficulty},
};
use pqvpn_wire::dht::{Contact, MAX_ADDRESSES};
use sha2::{Digest, Sha256};

use crate::{
    Now,
    address::{AddressRefusal, Origin},
    counters::Attack,
    limit::{Bucket, Rate, generations::Generations},
};

/// How long a position lasts.
pub const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long the neighbouring week counts as well, for peers whose clock is wrong or who are just moving.
pub const WEEK_GRACE_MS: u64 = 3600 * 1000;

/// When a peer's weeks begin, ms after the epoch's.
///
/// Every peer has its own, or the whole DHT would move to new positions in one moment.
fn offset(peer: &PeerId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"pqvpn week");
    hash.update(peer.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) % WEEK_MS
}

/// The peer's week at a time (ms since 1970).
#[must_use]
pub fn week(peer: &PeerId, unix_ms: u64) -> u32 {
    u32::try_from(unix_ms.saturating_add(offset(peer)) / WEEK_MS).unwrap_or(u32::MAX)
}

/// When the peer's week after the one at `unix_ms` begins (ms since 1970): until then a new proof should be found.
#[must_use]
pub fn week_ends(peer: &PeerId, unix_ms: u64) -> u64 {
    let into = unix_ms.saturating_add(offset(peer)) % WEEK_MS;
    unix_ms.saturating_add(WEEK_MS - into)
}

/// Whether a position of this week counts now: it is the peer's week, or will be or was within [`WEEK_GRACE_MS`].
#[must_use]
pub fn current(peer: &PeerId, in_week: u32, unix_ms: u64) -> bool {
    in_week == week(peer, unix_ms)
        || in_week == week(peer, unix_ms.saturating_sub(WEEK_GRACE_MS))
        || in_week == week(peer, unix_ms.saturating_add(WEEK_GRACE_MS))
}

/// Why a contact cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ContactRefusal {
    /// No address, or more than [`MAX_ADDRESSES`].
    #[error("a contact has 1 to {MAX_ADDRESSES} addresses")]
    AddressCount,
    /// An address that must not be dialled.
    #[error(transparent)]
    Address(#[from] AddressRefusal),
    /// Its position belongs to another week.
    #[error("the position is of another week")]
    Week,
    /// The proof of work it claims is not enough.
    #[error("the proof of work does not reach the difficulty")]
    Work,
}

impl ContactRefusal {
    /// What to count.
    #[must_use]
    pub const fn attack(self) -> Attack {
        match self {
            Self::AddressCount => Attack::ContactAddressCount,
            Self::Address(AddressRefusal::Private) => Attack::ContactPrivateAddress,
            Self::Address(AddressRefusal::Bogon(_)) => Attack::ContactBogon,
            Self::Week => Attack::AdmissionWeek,
            Self::Work => Attack::AdmissionNotMet,
        }
    }
}

/// Checks all that can be checked of a contact without asking it and without evaluating its proof of work.
///
/// # Errors
/// The first rule it breaks.
pub fn plausible(
    contact: &Contact,
    now: Now,
    difficulty: u32,
    origin: impl Into<Origin>,
) -> Result<(), ContactRefusal> {
    if contact.addresses().is_empty() || contact.addresses().len() > MAX_ADDRESSES {
        return Err(ContactRefusal::AddressCount);
    }
    if !current(contact.peer(), contact.admission().week, now.unix_ms) {
        return Err(ContactRefusal::Week);
    }
    if !pow::meets(&contact.admission().out, Difficulty(difficulty)) {
        return Err(ContactRefusal::Work);
    }
    origin.into().judge_all(contact.addresses())?;
    Ok(())
}

/// Evaluations of proofs of work: 10 ms and 8 MiB each (security.md 7.1).
const EVALUATIONS: Rate = Rate { burst: 64.0, per_second: 20.0 };

/// Of those, for peers that come by themselves: they must not use up what our own lookups need.
const WELCOMES: Rate = Rate { burst: 48.0, per_second: 10.0 };

/// The positions whose proof of work was evaluated and is true, bounded, and the budget for evaluations.
#[derive(Debug)]
pub struct Admitted {
    known: Generations<PeerId, (u32, [u8; 32])>,
    budget: Bucket,
    welcomes: Bucket,
}

impl Default for Admitted {
    fn default() -> Self {
        Self::new(8192)
    }
}

impl Admitted {
    /// Nobody is admitted; at most `capacity` are remembered, the longest unused are forgotten first.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let full = |rate| Bucket::full(rate, Duration::ZERO);
        Self { known: Generations::new(capacity), budget: full(&EVALUATIONS), welcomes: full(&WELCOMES) }
    }

    /// Whether exactly this position of this peer was found true. A new week is another position.
    #[must_use]
    pub fn contains(&self, contact: &Contact) -> bool {
        let admission = contact.admission();
        self.known.get(contact.peer()) == Some(&(admission.week, admission.out))
    }

    /// Remembers that the contact's proof of work is true.
    pub fn insert(&mut self, _now: Now, contact: &Contact) {
        let admission = contact.admission();
        *self.known.entry(*contact.peer(), || (0, [0; 32])) = (admission.week, admission.out);
    }

    /// Forgets a peer.
    pub fn remove(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// Takes one evaluation out of the budget of 20 a second; `false` ([`Attack::AdmissionRate`]): not now.
    pub fn may_evaluate(&mut self, now: Now) -> bool {
        let allowed = self.budget.wait(&EVALUATIONS, now.mono, 1.0).is_zero();
        if allowed {
            self.budget.take(&EVALUATIONS, 1.0);
        }
        allowed
    }

    /// Takes one stranger's turn to be evaluated and dialled; `false` ([`Attack::AdmissionRate`]): not now.
    pub fn may_welcome(&mut self, now: Now) -> bool {
        let allowed = self.welcomes.wait(&WELCOMES, now.mono, 1.0).is_zero();
        if allowed {
            self.welcomes.take(&WELCOMES, 1.0);
        }
        allowed
    }

    /// Positions remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions forgotten for want of room since the last call ([`Attack::TableForgot`]).
    pub const fn take_forgotten(&mut self) -> u64 {
        self.known.take_forgotten()
    }
}

#[cfg(test)]
mod tests;
