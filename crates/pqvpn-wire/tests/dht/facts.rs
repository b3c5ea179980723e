// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts prove themselves, and only if every part of the proof holds.

use std::sync::Arc;

use pqvpn_crypto::identity::SignatureLabel;
use pqvpn_wire::dht::{
    CompositeVerifier, Equivocation, Fact, Record, RecordDraft, Revocation, RevocationReason, Rotation,
};

use crate::{
    check::{NOW_MS, identity, sender},
    samples::{facts, sign, value, value_draft},
};

fn holds(fact: Fact) -> bool {
    fact.verify(&CompositeVerifier)
}

fn rotation() -> Rotation {
    let Fact::Rotation(rotation) = &*facts()[0] else { unreachable!("the first fact is a rotation") };
    rotation.clone()
}

fn revocation() -> Revocation {
    let Fact::Revocation(revocation) = &*facts()[1] else { unreachable!("the second fact is a revocation") };
    revocation.clone()
}

#[test]
fn honest_facts_hold_and_name_their_subject() {
    for fact in facts() {
        assert!(fact.verify(&CompositeVerifier), "{fact:?}");
        assert_eq!(*fact.subject(), sender().peer_id());
    }
}

#[test]
fn a_rotation_needs_both_signatures() {
    let good = rotation();
    assert!(holds(Fact::Rotation(good.clone())));
    for forged in [
        Rotation { old_signature: good.new_signature.clone(), ..good.clone() },
        Rotation { new_signature: good.old_signature.clone(), ..good.clone() },
        Rotation { seq: 2, ..good.clone() },
        Rotation { at_ms: 0, ..good.clone() },
        Rotation { new: identity(4).peer_id(), ..good.clone() },
        Rotation { old: identity(4).peer_id(), ..good.clone() },
        Rotation { old_key: good.new_key.clone(), ..good.clone() },
        Rotation { new_key: good.old_key.clone(), ..good.clone() },
        Rotation {
            old: good.new,
            old_key: good.new_key.clone(),
            old_signature: good.new_signature.clone(),
            new: good.old,
            new_key: good.old_key.clone(),
            new_signature: good.old_signature.clone(),
            ..good.clone()
        },
        Rotation::sign(sender(), sender(), 1, NOW_MS).unwrap(),
    ] {
        assert!(!holds(Fact::Rotation(forged.clone())), "{forged:?}");
    }
}

#[test]
fn only_an_identity_revokes_itself() {
    let good = revocation();
    assert!(holds(Fact::Revocation(good.clone())));
    let stranger = Revocation::sign(&identity(9), NOW_MS, RevocationReason::Compromised).unwrap();
    let other_label = sender().sign(SignatureLabel::DhtRotation, b"").unwrap().into_bytes();
    for forged in [
        Revocation { peer: good.peer, ..stranger.clone() },
        Revocation { signature: stranger.signature.clone(), ..good.clone() },
        Revocation { key: stranger.key, ..good.clone() },
        Revocation { at_ms: 1, ..good.clone() },
        Revocation { reason: RevocationReason::Retired, ..good.clone() },
        Revocation { signature: other_label, ..good.clone() },
        Revocation { signature: vec![], ..good },
    ] {
        assert!(!holds(Fact::Revocation(forged.clone())), "{forged:?}");
    }
}

#[test]
fn two_records_equivocate_only_if_they_contradict() {
    let (a, b) = (value(), sign(value_draft(b"world")));
    let proof = Equivocation::new(a.clone(), b.clone()).unwrap();
    assert_eq!(Equivocation::new(b.clone(), a.clone()), Some(proof.clone()), "the order does not matter");
    assert!(holds(Fact::Equivocation(proof.clone())));

    let resigned = sign(value_draft(b"hello"));
    assert_eq!(Equivocation::new(a.clone(), resigned), None, "the same content, signed twice");
    let newer = sign(RecordDraft { seq: 2, ..value_draft(b"world") });
    assert_eq!(Equivocation::new(a.clone(), newer.clone()), None, "a newer record");
    let peer = crate::samples::record();
    assert_eq!(Equivocation::new(a.clone(), peer), None, "another key");
    let stranger = identity(9);
    let foreign = RecordDraft { owner: stranger.peer_id(), ..value_draft(b"world") };
    let foreign = Arc::new(Record::sign(foreign, &stranger).unwrap());
    assert_eq!(Equivocation::new(a.clone(), foreign.clone()), None, "another owner");
    for bad in [newer, foreign] {
        let proof = if a.digest() < bad.digest() {
            Equivocation { a: a.clone(), b: bad }
        } else {
            Equivocation { a: bad, b: a.clone() }
        };
        assert!(!holds(Fact::Equivocation(proof.clone())));
        assert!(Fact::decode(&Fact::Equivocation(proof).encode()).is_err());
    }
    let swapped = Fact::Equivocation(Equivocation { a: proof.b, b: proof.a });
    assert!(Fact::decode(&swapped.encode()).is_err(), "one proof has one encoding");

    let forged = Record::assemble(value_draft(b"planted"), b.owner_key().to_vec(), b.signature().to_vec());
    let framed = Equivocation::new(a, Arc::new(forged)).unwrap();
    assert!(!holds(Fact::Equivocation(framed)), "nobody can be framed with a record not signed");
}

#[test]
fn one_subject_fills_one_place_per_kind() {
    let again = Revocation::sign(sender(), NOW_MS + 1, RevocationReason::Retired).unwrap();
    assert_eq!(Fact::Revocation(again).id(), facts()[1].id());
    let other = Equivocation::new(value(), sign(value_draft(b"third"))).unwrap();
    assert_eq!(Fact::Equivocation(other).id(), facts()[2].id());
    let rotated = Rotation::sign(sender(), &identity(3), 1, NOW_MS).unwrap();
    assert_eq!(Fact::Rotation(rotated).id(), facts()[0].id(), "signatures do not count");
    let next = Rotation::sign(sender(), &identity(3), 2, NOW_MS).unwrap();
    assert_ne!(Fact::Rotation(next).id(), facts()[0].id());
    let ids = facts().map(|fact| fact.id());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn reasons_read_back() {
    for reason in RevocationReason::ALL {
        assert_eq!(RevocationReason::from_code(reason.code()), Some(reason));
    }
    assert_eq!(RevocationReason::from_code(0), None);
}
