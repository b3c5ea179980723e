// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose signature holds for what, and nothing else.

use pqvpn_crypto::identity::{CompositeSignature, SIGNATURE_LEN, SignatureLabel};
use pqvpn_wire::{
    WireError,
    network::{
        Act, BodyError, Cover, CoverSecret, Invite, MAX_SIGNERS, MemberDraft, MemberRecord, NetworkId, SignedInvite,
        Statement, act, cover::CoverError, invite::InviteError, member::MemberRecordError,
    },
};

use crate::samples::{
    NETWORK, NOW_MS, admin, body, genesis, identity, invite, later_acts, member, member_draft, member_record,
    signed_invite, statement,
};

fn junk(byte: u8) -> CompositeSignature {
    CompositeSignature::from_bytes(&[byte; SIGNATURE_LEN]).unwrap()
}

#[test]
fn the_signer_s_own_key_verifies_and_no_other() {
    let signed = statement(Act::Checkpoint { seal: [1; 32] });
    let (admin, member) = (admin(), member());
    assert!(signed.verify_signer(&admin.peer_id(), admin.public()));
    assert!(!signed.verify_signer(&member.peer_id(), member.public()), "did not sign");
    assert!(!signed.verify_signer(&admin.peer_id(), member.public()), "not the signer's key");
    assert!(!signed.verify_signer(&member.peer_id(), admin.public()), "not the key's owner");
}

#[test]
fn a_signature_does_not_move_to_another_statement_signer_or_purpose() {
    let signed = statement(Act::Checkpoint { seal: [1; 32] });
    let signature = signed.signature(&admin().peer_id()).unwrap().clone();
    let mut other = Statement::draft(body(Act::Checkpoint { seal: [2; 32] })).unwrap();
    other.add_signature(admin().peer_id(), signature.clone());
    assert!(!other.verify_signer(&admin().peer_id(), admin().public()));
    let mut stolen = Statement::draft(signed.body().clone()).unwrap();
    stolen.add_signature(member().peer_id(), signature);
    assert!(!stolen.verify_signer(&member().peer_id(), member().public()));
    assert!(!stolen.verify_signer(&member().peer_id(), admin().public()), "a good signature in another's name");
    let foreign = admin().sign(SignatureLabel::Statement, signed.body_bytes()).unwrap();
    let mut foreign_label = Statement::draft(signed.body().clone()).unwrap();
    foreign_label.add_signature(admin().peer_id(), foreign);
    assert!(!foreign_label.verify_signer(&admin().peer_id(), admin().public()));
}

#[test]
fn the_id_depends_on_every_field_and_on_no_signature() {
    let act = || Act::Checkpoint { seal: [1; 32] };
    let draft = |change: &dyn Fn(&mut pqvpn_wire::network::StatementBody)| {
        let mut body = body(act());
        change(&mut body);
        Statement::draft(body).unwrap().id()
    };
    let plain = Statement::draft(body(act())).unwrap().id();
    assert_eq!(plain, statement(act()).id());
    let changed = [
        draft(&|body| body.network = NetworkId::from_bytes([1; 32])),
        draft(&|body| body.seq += 1),
        draft(&|body| body.parents.truncate(1)),
        draft(&|body| body.at_ms += 1),
        draft(&|body| body.act = Act::Checkpoint { seal: [2; 32] }),
        draft(&|body| body.act = Act::Disable { secret: [1; 32] }),
    ];
    assert!(changed.iter().all(|id| *id != plain));
    // Order of parents is no difference.
    assert_eq!(draft(&|body| body.parents.reverse()), plain);
}

#[test]
fn signatures_of_one_statement_are_united() {
    let act = || Act::RemoveAdmin { peer: member().peer_id() };
    let (mut left, mut right) = (statement(act()), Statement::draft(body(act())).unwrap());
    right.sign(member()).unwrap();
    left.merge(&right);
    assert_eq!(left.signers().len(), 2);
    assert!(left.verify_signer(&member().peer_id(), member().public()));
    assert!(left.verify_signer(&admin().peer_id(), admin().public()));
    // What is there stays: nobody overwrites a good signature with a bad one.
    left.add_signature(admin().peer_id(), junk(9));
    assert!(left.verify_signer(&admin().peer_id(), admin().public()));
    assert!(left.remove_signature(&admin().peer_id()).is_some());
    assert_eq!(left.signers().copied().collect::<Vec<_>>(), [member().peer_id()]);
    left.merge(&statement(Act::Checkpoint { seal: [1; 32] }));
    assert_eq!(left.signers().len(), 1, "another statement's");
}

#[test]
fn sixteen_sign_one_statement_at_most() {
    let mut many = Statement::draft(body(Act::Checkpoint { seal: [1; 32] })).unwrap();
    for byte in 0..20 {
        many.add_signature([byte; 32].into(), junk(byte));
    }
    assert_eq!(many.signers().len(), MAX_SIGNERS);
    assert_eq!(Statement::decode(&many.encode()).as_ref(), Ok(&many));
}

#[test]
fn the_key_an_act_shows_is_only_the_one_that_signs_it() {
    let genesis = Act::Genesis(Box::new(genesis()));
    assert_eq!(genesis.signing_key(&admin().peer_id()), Some(admin().public()));
    assert_eq!(genesis.signing_key(&member().peer_id()), None);
    for act in later_acts() {
        let keys = [admin(), member()].map(|who| act.signing_key(&who.peer_id()).is_some());
        let expected = match act.name() {
            "rotate" => [true, false],
            "leave" => [false, true],
            _ => [false, false],
        };
        assert_eq!(keys, expected, "{}", act.name());
    }
}

#[test]
fn the_new_key_consents_to_one_rotation() {
    let Act::Rotate { old, key, proof } = Act::rotate(&NETWORK, admin().public().clone(), member()).unwrap() else {
        panic!("a rotation");
    };
    let holds = |network: &NetworkId, old: &_| {
        key.verify(SignatureLabel::NetworkRotation, &act::rotation_bytes(network, old), &proof).is_ok()
    };
    assert!(holds(&NETWORK, &old.peer_id()));
    assert!(!holds(&NetworkId::from_bytes([0; 32]), &old.peer_id()));
    assert!(!holds(&NETWORK, &key.peer_id()));
    let same = Act::rotate(&NETWORK, admin().public().clone(), admin()).unwrap();
    assert_eq!(Statement::draft(body(same)), Err(BodyError::SameKey));
}

#[test]
fn a_member_record_is_its_member_s() {
    let record = member_record();
    assert!(record.verify());
    assert_eq!((record.peer(), record.seq()), (member().peer_id(), 4));
    let mut bytes = record.encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(!MemberRecord::decode(&bytes).unwrap().verify(), "bad signature");
    // Another's key in it: refused as such, before any signature is looked at.
    let spki = member().public().to_spki();
    let at = record.encode().windows(spki.len()).position(|window| window == spki).unwrap();
    let mut bytes = record.encode();
    bytes[at..at + spki.len()].copy_from_slice(&admin().public().to_spki());
    assert_eq!(MemberRecord::decode(&bytes), Err(WireError::Malformed("member record")));
    // Changed content under the old signature.
    let mut bytes = record.encode();
    let at = bytes.windows(32).position(|window| window == [3; 32]).unwrap();
    bytes[at] ^= 1;
    assert!(!MemberRecord::decode(&bytes).unwrap().verify(), "changed head");
}

#[test]
fn a_member_record_lives_a_day_at_most() {
    let sign = |issued_ms, not_after_ms| {
        MemberRecord::sign(MemberDraft { issued_ms, not_after_ms, ..member_draft() }, member()).map(|_| ())
    };
    assert_eq!(sign(NOW_MS, NOW_MS + 86_400_000), Ok(()));
    assert_eq!(sign(NOW_MS, NOW_MS + 86_400_001), Err(MemberRecordError::Life));
    assert_eq!(sign(NOW_MS, NOW_MS), Err(MemberRecordError::Life));
    assert_eq!(sign(NOW_MS, NOW_MS - 1), Err(MemberRecordError::Life));
    assert_eq!(sign(u64::MAX, u64::MAX), Err(MemberRecordError::Life));
    // The reader holds to it too: one more ms in the signed bytes.
    let mut bytes = member_record().encode();
    let end = (NOW_MS + 86_400_000).to_be_bytes();
    let at = bytes.windows(8).position(|window| window == end).unwrap();
    bytes[at + 7] += 1;
    assert_eq!(MemberRecord::decode(&bytes), Err(WireError::Malformed("member record")));
}

#[test]
fn an_invite_is_its_issuer_s() {
    let signed = signed_invite();
    assert!(signed.verify(admin().public()));
    assert!(!signed.verify(member().public()));
    // Somebody else's good signature under an invite in the admin's name.
    let bytes = signed.encode();
    assert_eq!(bytes[..2], [0x82, 0x58]);
    let (head, body) = bytes.split_at(3);
    let body = &body[..usize::from(head[2])];
    let forged = member().sign(SignatureLabel::NetworkInvite, body).unwrap();
    let forged = [head, body, &[0x59, 0x12, 0x53], forged.as_bytes()].concat();
    let forged = SignedInvite::decode(&forged).unwrap();
    assert!(!forged.verify(member().public()) && !forged.verify(admin().public()));
    let mine = Invite { issuer: member().peer_id(), ..invite() };
    assert_eq!(SignedInvite::sign(mine, admin()), Err(InviteError::Issuer));
    for at in [40, 60, 100, 200, 300] {
        let mut bytes = signed.encode();
        bytes[at] ^= 1;
        if let Ok(bent) = SignedInvite::decode(&bytes) {
            assert!(!bent.verify(admin().public()), "{at}");
        }
    }
    let other = identity(3);
    assert_ne!(other.peer_id(), admin().peer_id());
}

#[test]
fn a_cover_is_its_issuer_s_and_its_name_says_nothing_of_its_secret() {
    let cover = crate::samples::cover();
    assert!(cover.verify(admin().public()) && !cover.verify(member().public()));
    assert_eq!(Cover::decode(&cover.encode()).unwrap().id(), cover.id());
    let (other, bytes) = (CoverSecret::from_bytes([9; 32]), cover.encode());
    let other = Cover::sign(NETWORK, (3, NOW_MS), cover.after().to_vec(), other, admin()).unwrap();
    assert_ne!(other.id(), cover.id());
    for at in [8, 50, 60, 100, 150, 180] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        if let Ok(bent) = Cover::decode(&bytes) {
            assert!(!bent.verify(admin().public()), "{at}");
        }
    }
    let none = Cover::sign(NETWORK, (3, NOW_MS), Vec::new(), CoverSecret::from_bytes([8; 32]), admin());
    assert_eq!(none.err(), Some(CoverError::After));
}

#[test]
fn secrets_do_not_print() {
    let shown = format!("{:?} {:?} {:?}", genesis(), crate::samples::code(), crate::samples::cover());
    assert!(!shown.contains("7, 7, 7") && !shown.contains("8, 8, 8") && !shown.contains("90, 90"), "{shown}");
}
