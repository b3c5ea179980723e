// SPDX-License-Identifier: MIT OR Apache-2.0
//! The replay guard: nothing counts twice, everything is bounded, and nobody crowds others out.

use std::collections::BTreeSet;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::envelope::{MAX_SKEW_MS, REPLAY_PER_PEER, REPLAY_TOTAL, ReplayError, ReplayGuard};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn nonce(number: usize) -> [u8; 16] {
    u128::try_from(number).unwrap().to_be_bytes()
}

#[test]
fn a_message_counts_once_as_long_as_it_could_pass_for_fresh() {
    let mut guard = ReplayGuard::new();
    assert_eq!(guard.check(NOW, &peer(1), &nonce(1)), Ok(()));
    for now in [NOW, NOW + 1, NOW + 2 * MAX_SKEW_MS] {
        assert_eq!(guard.check(now, &peer(1), &nonce(1)), Err(ReplayError::Replayed), "{now}");
    }
    assert_eq!(guard.check(NOW, &peer(2), &nonce(1)), Ok(()), "another peer's nonce is another nonce");
    assert_eq!(guard.check(NOW, &peer(1), &nonce(2)), Ok(()));
    assert_eq!(guard.len(), 3);
    assert_eq!(guard.check(NOW + 2 * MAX_SKEW_MS + 1, &peer(1), &nonce(1)), Ok(()), "the envelope refuses it by now");
    assert_eq!(guard.len(), 1, "the rest is forgotten");
}

#[test]
fn one_peer_has_a_bounded_share() {
    let mut guard = ReplayGuard::new();
    for number in 0..REPLAY_PER_PEER {
        assert_eq!(guard.check(NOW, &peer(1), &nonce(number)), Ok(()));
    }
    assert_eq!(guard.check(NOW, &peer(1), &nonce(REPLAY_PER_PEER)), Err(ReplayError::Full));
    assert_eq!(guard.check(NOW, &peer(1), &nonce(0)), Err(ReplayError::Replayed));
    assert_eq!(guard.check(NOW, &peer(2), &nonce(0)), Ok(()));
    assert_eq!(guard.len(), REPLAY_PER_PEER + 1);
}

#[test]
fn loud_peers_make_room_for_quiet_ones() {
    let mut guard = ReplayGuard::new();
    for loud in 0..u8::try_from(REPLAY_TOTAL / REPLAY_PER_PEER).unwrap() {
        for number in 0..REPLAY_PER_PEER {
            assert_eq!(guard.check(NOW, &peer(loud), &nonce(number)), Ok(()));
        }
    }
    assert_eq!(guard.len(), REPLAY_TOTAL);
    for number in 0..100 {
        assert_eq!(guard.check(NOW, &peer(200), &nonce(number)), Ok(()));
        assert_eq!(guard.check(NOW, &peer(200), &nonce(number)), Err(ReplayError::Replayed));
    }
    assert_eq!(guard.len(), REPLAY_TOTAL, "as many were forgotten of the loud");
}

#[test]
fn a_full_table_of_equals_refuses() {
    let mut guard = ReplayGuard::with_bounds(4, 3);
    for byte in 0..3 {
        assert_eq!(guard.check(NOW, &peer(byte), &nonce(0)), Ok(()));
    }
    assert_eq!(guard.check(NOW, &peer(9), &nonce(0)), Err(ReplayError::Full));
    assert_eq!((guard.len(), guard.is_empty()), (3, false));
    assert_eq!(guard.check(NOW + 2 * MAX_SKEW_MS + 1, &peer(9), &nonce(0)), Ok(()));
}

proptest! {
    /// Against a model that keeps everything: nothing fresh enough is taken twice, bounds hold, the clock may jump.
    #[test]
    fn no_sequence_breaks_the_guard(
        steps in proptest::collection::vec((0_u64..600_000, 0_u8..4, 0_usize..12), 1..300)
    ) {
        let mut guard = ReplayGuard::with_bounds(6, 64);
        let mut taken: BTreeSet<(u8, usize, u64)> = BTreeSet::new();
        for (now, from, number) in steps {
            let result = guard.check(now, &peer(from), &nonce(number));
            prop_assert!(guard.len() <= 24);
            if result == Ok(()) {
                taken.insert((from, number, now));
                prop_assert_eq!(guard.check(now, &peer(from), &nonce(number)), Err(ReplayError::Replayed));
            } else if result == Err(ReplayError::Replayed) {
                prop_assert!(taken.iter().any(|(peer, known, _)| (*peer, *known) == (from, number)));
            }
        }
    }
}
