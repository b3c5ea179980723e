// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every breach of the protocol ends the session with its reason; stolen state is worth nothing after a step.

use crate::pair::{Pair, chains, outputs, same_keys, sent, tx_chain};
use pqvpn_crypto::ratchet::machine::{R1_LEN, R2_LEN, R3_LEN, Ratchet, RatchetAbort, RatchetOutput};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn any_changed_bit_of_a_step_ends_the_session() {
    // Every field of every message: head, share, KEM key or ciphertext, nonce, MAC.
    for (message, len) in [(1, R1_LEN), (2, R2_LEN), (3, R3_LEN)] {
        let fields = [4, 5, 36, 37, 800, 1604, 1605, 1636, 1637, 1668, len - 1];
        for at in fields.into_iter().filter(|at| *at < len) {
            let mut pair = Pair::new();
            pair.tamper = Some((message, at));
            pair.sides[0].request_step(pair.now);
            pair.run();
            let aborted = pair.sides.iter().filter_map(Ratchet::aborted).next();
            assert!(aborted.is_some(), "R{message} byte {at} changed, nobody noticed");
            let both = pair.sides[0].epoch() == Some(1) && pair.sides[1].epoch() == Some(1);
            assert!(!both, "R{message} byte {at}");
        }
    }
}

#[test]
fn each_breach_has_its_reason_and_erases_everything() {
    let r1_of = |side: usize| {
        let mut other = Pair::new();
        other.sides[side].request_step(other.now);
        sent(outputs(&mut other.sides[side]))
    };
    let with_epoch = |mut message: Vec<u8>, epoch: u32| {
        message[1..5].copy_from_slice(&epoch.to_be_bytes());
        message
    };
    let r1 = r1_of(0);
    let mut zero_share = r1.clone();
    zero_share[5..37].fill(0);
    let mut bad_kem = r1.clone();
    bad_kem[37..40].fill(0xff);
    let r2 = [&[2][..], &1_u32.to_be_bytes(), &[0; R2_LEN - 5]].concat();
    let r3 = [&[3][..], &1_u32.to_be_bytes(), &[0; 32]].concat();
    let cases: [(&str, usize, Vec<u8>, RatchetAbort); 13] = [
        ("R1 two epochs ahead", 1, with_epoch(r1.clone(), 2), RatchetAbort::EpochGap),
        ("request far ahead", 0, vec![4, 0, 0, 0, 9], RatchetAbort::EpochGap),
        ("R1 of epoch 0", 1, with_epoch(r1.clone(), 0), RatchetAbort::Unexpected),
        ("R1 reflected to its leader", 0, r1.clone(), RatchetAbort::WrongLeader),
        ("request to a follower", 1, vec![4, 0, 0, 0, 1], RatchetAbort::WrongLeader),
        ("R2 without R1", 0, r2, RatchetAbort::Unexpected),
        ("R3 without R2", 1, r3, RatchetAbort::Unexpected),
        ("all-zero X25519 share", 1, zero_share, RatchetAbort::BadShare),
        ("ML-KEM key with a coefficient above q", 1, bad_kem, RatchetAbort::BadShare),
        ("empty", 0, vec![], RatchetAbort::Malformed),
        ("unknown kind", 0, vec![9, 0, 0, 0, 1], RatchetAbort::Malformed),
        ("R1 cut", 1, r1[..R1_LEN - 1].to_vec(), RatchetAbort::Malformed),
        ("request with a tail", 0, vec![4, 0, 0, 0, 1, 0], RatchetAbort::Malformed),
    ];
    for (name, side, message, reason) in cases {
        let mut pair = Pair::new();
        let victim = &mut pair.sides[side];
        assert_eq!(victim.handle_message(pair.now, &message), Err(reason), "{name}");
        assert!(matches!(&outputs(victim)[..], [RatchetOutput::Abort(told)] if *told == reason), "{name}");
        assert!(victim.resume_psk().is_none() && victim.ctrl_mac(b"").is_none(), "{name}");
        assert_eq!(victim.handle_message(pair.now, &r1), Err(reason), "{name}: dead stays dead");
        assert_eq!((victim.poll_timeout(), victim.epoch()), (None, None), "{name}");
        victim.request_step(pair.now);
        victim.note_traffic(pair.now + 500 * SECOND);
        assert!(outputs(victim).is_empty(), "{name}");
    }
}

#[test]
fn a_second_r1_that_differs_aborts_before_and_after_the_step() {
    let other = {
        let mut other = Pair::new();
        other.sides[0].request_step(other.now);
        sent(outputs(&mut other.sides[0]))
    };
    for completed in [false, true] {
        let mut pair = Pair::new();
        if completed {
            pair.step();
        } else {
            pair.sides[0].request_step(pair.now);
            let r1 = sent(outputs(&mut pair.sides[0]));
            pair.sides[1].handle_message(pair.now, &r1).unwrap();
        }
        assert_eq!(pair.sides[1].handle_message(pair.now, &other), Err(RatchetAbort::Conflict), "{completed}");
    }
}

#[test]
fn a_copy_of_the_state_before_a_step_knows_nothing_after_it() {
    // The thief holds everything both sides held in epoch 0, and reads R1, R2 and R3.
    let mut pair = Pair::new();
    let mut thief = Pair::new();
    assert!(same_keys(&tx_chain(), &tx_chain()), "the copy is one: it has the keys of epoch 0");
    pair.sides[0].request_step(pair.now);
    let r1 = sent(outputs(&mut pair.sides[0]));
    pair.sides[1].handle_message(pair.now, &r1).unwrap();
    let r2 = sent(outputs(&mut pair.sides[1]));
    pair.sides[0].handle_message(pair.now, &r2).unwrap();
    let real = chains(outputs(&mut pair.sides[0]));
    // As the follower he can answer R1, but not as the follower did; as the leader he has no private keys for R2.
    thief.sides[1].handle_message(thief.now, &r1).unwrap();
    for stolen in chains(outputs(&mut thief.sides[1])) {
        assert!(real.iter().all(|chain| !same_keys(chain, &stolen)));
    }
    thief.sides[0].request_step(thief.now);
    outputs(&mut thief.sides[0]);
    assert_eq!(thief.sides[0].handle_message(thief.now, &r2), Err(RatchetAbort::MacFailure));
    // And his own R1 in the middle is another R1: the real leader refuses the answer to it.
    let mut spliced = Pair::new();
    spliced.sides[0].request_step(spliced.now);
    let r1 = sent(outputs(&mut spliced.sides[0]));
    let mut live = Pair::new();
    live.sides[0].request_step(live.now);
    outputs(&mut live.sides[0]);
    spliced.sides[1].handle_message(spliced.now, &r1).unwrap();
    let answer = sent(outputs(&mut spliced.sides[1]));
    assert_eq!(live.sides[0].handle_message(live.now, &answer), Err(RatchetAbort::MacFailure));
}
