// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known answers of the proof of work, computed once with argon2-cffi 25.1.0 (the reference C code), and its bounds.

use std::cell::Cell;

use data_encoding::HEXLOWER;

use super::*;

const FIRST: &str = "05c8f0fdbda65af09b1ace8ad56d9fb93e6bbbbaf0b8f316f550fe03a81f42e3";

fn challenge(week: u32) -> Challenge {
    let peer = PeerId::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    Challenge { network: *b"pqvpn open dht v1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", peer, week }
}

fn bytes(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

#[test]
fn outputs_agree_with_the_reference_implementation() {
    for (week, nonce, expected) in [
        (2968, 0, FIRST),
        (2968, 0x0102_0304_0506_0708, "dd6a6f38469350b95d47f0c5c403e8689317580928ff24632bda07ea64017713"),
        (u32::MAX, u64::MAX, "454cbf1ec8bcc76827b6c5024889333aa4dd64547f679d295beccb25100241ac"),
    ] {
        assert_eq!(evaluate(&challenge(week), nonce), bytes(expected), "week {week}, nonce {nonce}");
    }
}

#[test]
fn the_bound_is_exact() {
    // 2^256 / FIRST = 44.25.
    assert!(meets(&bytes(FIRST), Difficulty(44)));
    assert!(!meets(&bytes(FIRST), Difficulty(45)));
    for difficulty in [Difficulty(0), Difficulty(1)] {
        assert!(meets(&[0xff; 32], difficulty), "{difficulty:?}");
    }
    assert!(!meets(&[0xff; 32], Difficulty(2)));
    assert!(meets(&[0; 32], Difficulty(u32::MAX)));
    let mut half = [0; 32];
    half[0] = 0x80;
    assert!(!meets(&half, Difficulty(2)), "the bound itself is not below the bound");
    half = [0xff; 32];
    half[0] = 0x7f;
    assert!(meets(&half, Difficulty(2)));
}

#[test]
fn a_solution_is_found_and_checks() {
    let (nonce, out) = solve(&challenge(2968), Difficulty(16), 1, &|| false).unwrap();
    assert_eq!((nonce, out), (8, bytes("069de0875a2b0f9f03ab37717783fbbe6214b4e709327f843134ea1d2400b89f")));
    assert!(check(&challenge(2968), Difficulty(16), nonce, &out));
}

#[test]
fn a_proof_holds_for_its_own_claim_only() {
    let (good, out) = (challenge(2968), bytes(FIRST));
    assert!(check(&good, Difficulty(16), 0, &out));
    assert!(!check(&good, Difficulty(45), 0, &out), "too easy");
    assert!(!check(&good, Difficulty(16), 1, &out), "another nonce");
    assert!(!check(&good, Difficulty(16), 0, &[0; 32]), "an invented output");
    assert!(!check(&challenge(2969), Difficulty(16), 0, &out), "another week");
    let stranger = Challenge { peer: PeerId::from_bytes([9; 32]), ..good };
    assert!(!check(&stranger, Difficulty(16), 0, &out), "another peer");
    assert!(!check(&Challenge { network: [9; 32], ..good }, Difficulty(16), 0, &out), "another network");
}

#[test]
fn a_search_stops_when_told() {
    let tries = Cell::new(0);
    let stop = || tries.replace(tries.get() + 1) == 3;
    assert_eq!(solve(&challenge(1), Difficulty(u32::MAX), 0, &stop), None);
    assert_eq!(tries.get(), 4);
}
