// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts prove themselves, contradict each other safely, and cannot be flooded away.

use pqvpn_crypto::identity::{Identity, IdentitySeed, SignatureLabel};
use pqvpn_wire::dht::{CompositeVerifier, Equivocation, Record, Revocation};

use super::*;
use crate::rules::fixture::{TODAY_MS, Toy, at, peer, signed, value_draft};

/// Takes every signature that says "good".
#[derive(Debug)]
struct Easy;

impl Verifier for Easy {
    fn verify(&self, _: &PeerId, _: &[u8], _: SignatureLabel, _: &[u8], signature: &[u8]) -> bool {
        signature == b"good"
    }
}

fn rotation(old: u32, new: u32, seq: u64) -> Arc<Fact> {
    let (old, new, good) = (peer(old), peer(new), b"good".to_vec());
    let (old_key, new_key) = (old.as_bytes().to_vec(), new.as_bytes().to_vec());
    let (old_signature, new_signature) = (good.clone(), good);
    Arc::new(Fact::Rotation(Rotation {
        old,
        old_key,
        new,
        new_key,
        seq,
        at_ms: TODAY_MS,
        old_signature,
        new_signature,
    }))
}

fn revocation_of(subject: u32, reason: RevocationReason, at_ms: u64, signature: &[u8]) -> Arc<Fact> {
    let (peer, key) = (peer(subject), peer(subject).as_bytes().to_vec());
    Arc::new(Fact::Revocation(Revocation { peer, key, at_ms, reason, signature: signature.to_vec() }))
}

fn revocation(subject: u32) -> Arc<Fact> {
    revocation_of(subject, RevocationReason::Compromised, TODAY_MS, b"good")
}

fn two_truths(owner: u32) -> Fact {
    let record = |content| signed(value_draft(peer(owner), 1, 1, content));
    Fact::Equivocation(Equivocation::new(record(1), record(2)).unwrap())
}

fn add(facts: &mut Facts, fact: &Arc<Fact>) -> Result<bool, FactRefusal> {
    facts.add(at(0), Arc::clone(fact), &Easy)
}

#[test]
fn a_revocation_by_its_own_keys_revokes_and_is_news_once() {
    let mut facts = Facts::default();
    assert!(!facts.revoked(&peer(1)));
    assert_eq!(add(&mut facts, &revocation(1)), Ok(true));
    assert!(facts.revoked(&peer(1)) && !facts.revoked(&peer(2)));
    assert_eq!(add(&mut facts, &revocation(1)), Ok(false));
    let again = revocation_of(1, RevocationReason::Retired, TODAY_MS - 5, b"good");
    assert_eq!(add(&mut facts, &again), Ok(false), "in other words");
    assert_eq!(facts.len(), 1);
}

#[test]
fn an_unproven_fact_changes_nothing() {
    let mut facts = Facts::default();
    let forged = revocation_of(1, RevocationReason::Retired, TODAY_MS, b"bad");
    assert_eq!(add(&mut facts, &forged), Err(FactRefusal::Unproven));
    let Fact::Rotation(good) = &*rotation(1, 2, 1) else { panic!("a rotation") };
    let without_old = Fact::Rotation(Rotation { old_signature: b"bad".to_vec(), ..good.clone() });
    let without_new = Fact::Rotation(Rotation { new_signature: b"bad".to_vec(), ..good.clone() });
    for fact in [without_old, without_new] {
        assert_eq!(add(&mut facts, &Arc::new(fact)), Err(FactRefusal::Unproven));
    }
    assert!(facts.is_empty() && !facts.revoked(&peer(1)) && facts.successor(&peer(1)).is_none());
    assert_eq!(add(&mut facts, &revocation(1)), Ok(true), "a forgery does not keep the truth out");
}

#[test]
fn real_identities_rotate_and_revoke() {
    let identity = |seed| Identity::from_seed(&IdentitySeed::from_bytes(&[seed; 64])).unwrap();
    let (old, new, thief) = (identity(1), identity(2), identity(3));
    let mut facts = Facts::default();
    let mut add = |fact| facts.add(at(0), Arc::new(fact), &CompositeVerifier);
    let good = Rotation::sign(&old, &new, 1, TODAY_MS).unwrap();
    let stolen = Rotation::sign(&thief, &new, 1, TODAY_MS).unwrap();
    assert_eq!(add(Fact::Rotation(Rotation { old: old.peer_id(), ..stolen })), Err(FactRefusal::Unproven));
    assert_eq!(add(Fact::Rotation(good)), Ok(true));
    let theirs = Revocation::sign(&thief, TODAY_MS, RevocationReason::Superseded).unwrap();
    let other = Revocation { peer: old.peer_id(), ..theirs };
    assert_eq!(add(Fact::Revocation(other)), Err(FactRefusal::Unproven), "nobody revokes another");
    let own = Revocation::sign(&old, TODAY_MS, RevocationReason::Superseded).unwrap();
    assert_eq!(add(Fact::Revocation(own)), Ok(true));
    assert_eq!(facts.successor(&old.peer_id()), Some(new.peer_id()), "superseded, by the one named before");
    assert!(facts.revoked(&old.peer_id()));
}

#[test]
fn two_truths_are_proof_and_two_peers_or_two_seqs_are_not() {
    let mut facts = Facts::default();
    assert_eq!(facts.add(at(0), Arc::new(two_truths(1)), &Toy), Ok(true));
    assert!(facts.revoked(&peer(1)) && facts.equivocated(&peer(1)) && !facts.equivocated(&peer(2)));
    let pair = |a: &Arc<Record>, b: &Arc<Record>| {
        Arc::new(Fact::Equivocation(Equivocation { a: Arc::clone(a), b: Arc::clone(b) }))
    };
    let a = signed(value_draft(peer(3), 1, 1, 1));
    for b in [
        &a,
        &signed(value_draft(peer(3), 1, 2, 2)),
        &signed(value_draft(peer(4), 1, 1, 2)),
        &signed(value_draft(peer(3), 2, 1, 2)),
    ] {
        assert_eq!(facts.add(at(0), pair(&a, b), &Toy), Err(FactRefusal::Unproven));
        assert_eq!(facts.add(at(0), pair(b, &a), &Toy), Err(FactRefusal::Unproven));
    }
    let forged =
        Arc::new(Record::assemble(value_draft(peer(3), 1, 1, 2), a.owner_key().to_vec(), a.signature().to_vec()));
    for proof in [pair(&a, &forged), pair(&forged, &a)] {
        assert_eq!(facts.add(at(0), proof, &Toy), Err(FactRefusal::Unproven));
    }
    assert!(!facts.revoked(&peer(3)));
}

#[test]
fn a_fact_dated_ahead_is_refused() {
    let mut facts = Facts::default();
    let dated = |ahead| revocation_of(1, RevocationReason::Retired, TODAY_MS + ahead, b"good");
    assert_eq!(add(&mut facts, &dated(SKEW_MS + 1)), Err(FactRefusal::Future));
    assert_eq!(add(&mut facts, &dated(SKEW_MS)), Ok(true));
}

#[test]
fn a_chain_of_rotations_is_followed_to_its_end() {
    let mut facts = Facts::default();
    for n in 1..6 {
        assert_eq!(add(&mut facts, &rotation(n, n + 1, 1)), Ok(true));
    }
    assert_eq!(facts.successor(&peer(1)), Some(peer(6)));
    assert_eq!(facts.successor(&peer(6)), None);
    add(&mut facts, &revocation_of(3, RevocationReason::Superseded, TODAY_MS, b"good")).unwrap();
    assert_eq!(facts.successor(&peer(1)), Some(peer(6)), "superseded on the way");
    add(&mut facts, &revocation(6)).unwrap();
    assert_eq!(facts.successor(&peer(1)), None, "its end is revoked");
}

#[test]
fn a_chain_that_never_ends_leads_nowhere() {
    let mut facts = Facts::default();
    for (old, new) in [(1, 2), (2, 3), (3, 1)] {
        add(&mut facts, &rotation(old, new, 1)).unwrap();
    }
    assert_eq!(facts.successor(&peer(1)), None);
    for n in 100..200 {
        add(&mut facts, &rotation(n, n + 1, 1)).unwrap();
    }
    assert_eq!(facts.successor(&peer(100)), None, "longer than anybody rotates");
}

#[test]
fn with_two_successors_none_is_believed_and_a_third_is_not_kept() {
    let mut facts = Facts::default();
    add(&mut facts, &rotation(1, 2, 1)).unwrap();
    assert_eq!(add(&mut facts, &rotation(1, 2, 2)), Ok(false), "the same one again");
    assert_eq!(add(&mut facts, &rotation(1, 66, 9)), Ok(true), "a contradiction is news");
    assert_eq!(facts.successor(&peer(1)), None);
    assert_eq!(add(&mut facts, &rotation(1, 67, 10)), Err(FactRefusal::Contested));
    add(&mut facts, &rotation(5, 1, 1)).unwrap();
    assert_eq!(facts.successor(&peer(5)), None, "nor on the way from somebody else");
    assert_eq!(facts.len(), 3);
}

#[test]
fn stolen_keys_name_no_successor_after_their_revocation() {
    let mut facts = Facts::default();
    add(&mut facts, &revocation(1)).unwrap();
    assert_eq!(add(&mut facts, &rotation(1, 66, 9)), Err(FactRefusal::Revoked));
    facts.add(at(0), Arc::new(two_truths(2)), &Toy).unwrap();
    assert_eq!(add(&mut facts, &rotation(2, 66, 9)), Err(FactRefusal::Revoked));
    add(&mut facts, &rotation(3, 4, 1)).unwrap();
    add(&mut facts, &revocation(3)).unwrap();
    assert_eq!(facts.successor(&peer(3)), Some(peer(4)), "named before");
}

#[test]
fn a_flood_of_facts_displaces_the_oldest_but_nothing_pinned() {
    let mut facts = Facts::new(8);
    assert!(facts.pin(peer(1)));
    for subject in 1..=100 {
        assert_eq!(add(&mut facts, &revocation(subject)), Ok(true));
        assert!(facts.len() <= 8);
    }
    assert!(facts.revoked(&peer(1)), "pinned");
    assert!(!facts.revoked(&peer(2)) && facts.revoked(&peer(100)));
    assert_eq!(facts.take_displaced(), 92);
    assert_eq!((facts.numbers.len(), facts.standings.len()), (8, 8), "nothing is left behind");
    facts.unpin(&peer(1));
    add(&mut facts, &revocation(101)).unwrap();
    assert!(!facts.revoked(&peer(1)));
}

#[test]
fn when_everything_is_pinned_there_is_no_room() {
    let mut facts = Facts::new(2);
    for subject in [1, 2] {
        facts.pin(peer(subject));
        add(&mut facts, &revocation(subject)).unwrap();
    }
    assert_eq!(add(&mut facts, &revocation(3)), Err(FactRefusal::Full));
    let pinned = (10..1000).filter(|n| facts.pin(peer(*n))).count();
    assert_eq!(pinned, MAX_PINNED - 2);
    assert!(facts.pin(peer(1)), "already pinned");
}

#[test]
fn a_displaced_rotation_takes_its_consequence_along() {
    let mut facts = Facts::new(2);
    add(&mut facts, &rotation(1, 2, 1)).unwrap();
    add(&mut facts, &rotation(1, 3, 2)).unwrap();
    assert_eq!(facts.successor(&peer(1)), None);
    add(&mut facts, &revocation(9)).unwrap();
    assert_eq!(facts.of(&peer(1)).count(), 1);
    assert_eq!(facts.successor(&peer(1)), Some(peer(3)), "drawn from what is left");
}

#[test]
fn everything_is_told_once_in_order_and_in_pieces() {
    let mut facts = Facts::default();
    let all: Vec<_> = (1..=10).map(revocation).collect();
    for fact in &all {
        add(&mut facts, fact).unwrap();
    }
    let each = all[0].encoded_len();
    let (mut cursor, mut told) = (0, Vec::new());
    for _ in 0..4 {
        let (next, some) = facts.after(cursor, 3 * each);
        assert!(some.len() <= 3);
        told.extend(some);
        cursor = next;
    }
    assert_eq!(told, all);
    assert_eq!(facts.after(cursor, 3 * each), (cursor, Vec::new()));
    assert_eq!(facts.after(u64::MAX, 100 * each).1.len(), 10, "a cursor of another time starts over");
    assert!(cursor >= TODAY_MS, "numbers go on after a restart");
}

#[test]
fn a_fact_too_long_to_tell_does_not_hold_up_the_others() {
    let mut facts = Facts::default();
    let long = revocation_of(1, RevocationReason::Retired, TODAY_MS, b"good");
    add(&mut facts, &rotation(5, 6, 1)).unwrap();
    add(&mut facts, &long).unwrap();
    let room = long.encoded_len();
    assert!(rotation(5, 6, 1).encoded_len() > room);
    let (next, told) = facts.after(0, room);
    assert_eq!(told, [long]);
    assert_eq!(facts.after(next, room), (next, Vec::new()));
}

#[test]
fn every_refusal_has_its_own_counter() {
    let refusals =
        [FactRefusal::Unproven, FactRefusal::Future, FactRefusal::Contested, FactRefusal::Revoked, FactRefusal::Full];
    let counters: BTreeSet<Attack> = refusals.iter().map(|refusal| refusal.attack()).collect();
    assert_eq!(counters.len(), refusals.len());
    assert!(refusals.iter().all(|refusal| refusal.refusal() != Refusal::Malformed));
}
