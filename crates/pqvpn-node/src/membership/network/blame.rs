// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who passes on what is proven false: members believe nothing unchecked and pass on nothing false, so whoever does is
//! not listened to for a while. Links say who speaks; nobody can be blamed for another's words.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_trust::{CompositeVerifier, StatementVerifier};
use pqvpn_wire::network::{Statement, StatementId};

use super::Network;
use crate::clock;

/// False signatures, or statements of nobody with a say, of one member until it is not listened to; after the first so many of one message the rest is not
/// looked at.
pub(super) const MAX_FALSE: u32 = 16;
/// How long it is not listened to the first time; doubled each time after.
const DEAF: Duration = Duration::from_secs(60);
/// Doublings at most: half an hour.
const MAX_DOUBLINGS: u32 = 5;

/// What one member passed on that was false.
#[derive(Debug, Default)]
pub(in crate::membership) struct Blame {
    false_signatures: u32,
    times: u32,
    until: Option<Instant>,
}

impl Blame {
    /// Notes false signatures; says whether they are too many from now on.
    pub(super) fn note(&mut self, now: Instant, count: u32) -> bool {
        self.false_signatures = self.false_signatures.saturating_add(count);
        if self.false_signatures < MAX_FALSE {
            return false;
        }
        self.false_signatures = 0;
        self.until = Some(now + DEAF * 2_u32.pow(self.times.min(MAX_DOUBLINGS)));
        self.times = self.times.saturating_add(1);
        true
    }

    /// Whether its owner is not listened to now.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Checks what one message brought, and counts what of it is false.
///
/// Statements that waited for their parents are checked on the way; who sent those is not known, so they count for nobody.
pub(super) struct Witness {
    offered: BTreeMap<StatementId, Vec<Arc<Statement>>>,
    wrong: Cell<u32>,
}

impl Witness {
    pub(super) fn of(statements: &[Arc<Statement>]) -> Self {
        let mut offered: BTreeMap<StatementId, Vec<Arc<Statement>>> = BTreeMap::new();
        for statement in statements {
            offered.entry(statement.id()).or_default().push(Arc::clone(statement));
        }
        Self { offered, wrong: Cell::new(0) }
    }

    /// False signatures among those offered, and statements that nobody signed who could ever have a say.
    pub(super) fn wrong(&self) -> u32 {
        self.wrong.get()
    }

    fn judge(&self, offered: bool, check: impl FnOnce() -> bool) -> bool {
        if !offered {
            return check();
        }
        // What is false so often is not worth the time; what is true of it comes from others.
        let right = self.wrong.get() < MAX_FALSE && check();
        if !right {
            self.wrong.set(self.wrong.get().saturating_add(1));
        }
        right
    }
}

impl StatementVerifier for Witness {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        // By its bytes: another may have sent the same statement with a false signature before.
        let mut copies = self.offered.get(&statement.id()).into_iter().flatten();
        let offered = copies.any(|copy| copy.signature(signer) == statement.signature(signer));
        self.judge(offered, || CompositeVerifier.signature(statement, signer, key))
    }

    fn rotation(&self, statement: &Statement) -> bool {
        // The new key's consent is part of the body.
        self.judge(self.offered.contains_key(&statement.id()), || CompositeVerifier.rotation(statement))
    }

    fn looks(&self, statement: &Statement) -> bool {
        !self.offered.contains_key(&statement.id()) || self.wrong.get() < MAX_FALSE
    }

    fn unfounded(&self) {
        // Members do not hold such a statement, whatever else they hold: the same ancestors give the same answer.
        self.wrong.set(self.wrong.get().saturating_add(1));
    }
}

impl Network {
    /// A member passed on so many false signatures.
    pub(super) fn blame(&mut self, peer: PeerId, false_signatures: u64) {
        let count = u32::try_from(false_signatures).unwrap_or(u32::MAX);
        if count > 0 && self.blamed.entry(peer).or_default().note(clock::now(), count) {
            tracing::warn!(peer = %peer.short(), network = %self.head.name, "a member passes on what is false");
        }
    }

    /// Whether a member passed on so much that is false that nothing is taken from it now; counted.
    pub(in crate::membership) fn is_deaf_to(&mut self, now: Instant, peer: &PeerId) -> bool {
        let deaf = self.blamed.get(peer).is_some_and(|blame| blame.is_deaf(now));
        self.counters.unheard += u64::from(deaf);
        deaf
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_wire::network::Bundle;

    use super::super::tests::attacks::{NOW, identity, member, network};
    use super::*;

    #[test]
    fn whoever_has_seen_too_much_that_is_false_says_that_it_looks_no_more() {
        let network = network(&identity(1));
        let of = |number| {
            let act = member(identity(number).peer_id(), None);
            Arc::new(Statement::draft(network.constitution.draft(NOW, act)).unwrap())
        };
        let (offered, waited) = (of(2), of(3));
        let witness = Witness::of(&[Arc::clone(&offered)]);
        for _ in 0..MAX_FALSE {
            assert!(witness.looks(&offered));
            witness.unfounded();
        }
        assert!(!witness.looks(&offered) && witness.looks(&waited), "what came otherwise is nobody's fault");
    }

    #[test]
    fn who_passes_on_what_nobody_with_a_say_signed_is_not_listened_to() {
        let (founder, honest, liar) = (identity(1), identity(2), identity(3));
        let mut network = network(&founder);
        for peer in [&honest, &liar] {
            network.act(&founder, NOW, member(peer.peer_id(), None)).unwrap();
        }
        let of = |network: &Network, number: u8, signer: Option<&pqvpn_crypto::identity::Identity>| {
            let body = network.constitution.draft(NOW, member(identity(number).peer_id(), None));
            let mut statement = Statement::draft(body).unwrap();
            signer.into_iter().for_each(|signer| statement.sign(signer).unwrap());
            Arc::new(statement)
        };
        let unsigned = (10..18).map(|number| of(&network, number, None));
        let by_no_admin = (18..26).map(|number| of(&network, number, Some(&liar)));
        let statements: Vec<_> = unsigned.chain(by_no_admin).collect();
        // The same in the hands of nobody in particular is nobody's fault, and what an admin said is true from anybody.
        network.absorb(NOW, None, Bundle { statements: statements.clone(), ..Bundle::default() });
        let right = vec![of(&network, 40, Some(&founder))];
        assert!(network.absorb(NOW, Some(honest.peer_id()), Bundle { statements: right, ..Bundle::default() }).news);
        network.absorb(NOW, Some(liar.peer_id()), Bundle { statements, ..Bundle::default() });
        assert!(network.is_deaf_to(clock::now(), &liar.peer_id()));
        assert!(!network.is_deaf_to(clock::now(), &honest.peer_id()));
    }

    #[test]
    fn who_is_false_too_often_is_not_listened_to_for_ever_longer_but_never_for_ever() {
        let (mut blame, mut now) = (Blame::default(), Instant::now());
        assert!(!blame.note(now, MAX_FALSE - 1) && !blame.is_deaf(now));
        for minutes in [1_u64, 2, 4, 8, 16, 32, 32, 32] {
            assert!(blame.note(now, MAX_FALSE));
            let end = now + Duration::from_secs(minutes * 60);
            assert!(blame.is_deaf(end - Duration::from_millis(1)) && !blame.is_deaf(end), "{minutes}");
            now = end;
        }
    }
}
