// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known answers, limits and the order of the receive algorithm.

use super::keys::READY;
use super::*;
use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::header::{LANES, MASK_LEN};
use pqvpn_crypto::schedule::{Exporter, Psk, Role, SessionParts, SessionSecrets, Transcript};
use pqvpn_packet::header::{HEADER_LEN, OVERHEAD, PacketKind, TAG_LEN, sample_of};
use pqvpn_packet::replay::WINDOW_BITS;
use serde_json::Value;
use std::time::Instant;

const CHACHA: AeadId = AeadId::ChaCha20Poly1305;

fn bytes(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../pqvpn-crypto/tests/vectors/session.json")).unwrap()
}

fn parts_of(vector: &Value, role: Role) -> SessionParts {
    let psk = (!vector["psk"].is_null()).then(|| Psk::from_bytes(array(&vector["psk"])));
    let exporter = Exporter::from_bytes(array(&vector["exporter"]));
    SessionSecrets::derive(exporter, Transcript::from_bytes(array(&vector["th0"])), psk.as_ref()).into_parts(role)
}

fn parts(role: Role) -> SessionParts {
    SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None).into_parts(role)
}

fn pair(now: Instant) -> (TxSession, RxSession) {
    let (a, b) = (parts(Role::Initiator), parts(Role::Responder));
    (TxSession::new(CHACHA, a.tx_header, a.tx, now), RxSession::new(CHACHA, b.rx_header, b.rx, WINDOW_BITS, now))
}

fn room(text: &[u8]) -> Vec<u8> {
    [&[0; HEADER_LEN], text, &[0; TAG_LEN]].concat()
}

/// Seals one packet, announced by itself.
fn seal(tx: &mut TxSession, now: Instant) -> Vec<u8> {
    let mut packet = room(b"text");
    tx.begin_batch(now, 1).unwrap();
    tx.seal(7, PacketKind::Data, &mut packet).unwrap();
    packet
}

/// Seals one packet under a counter of choice.
fn seal_at(tx: &mut TxSession, now: Instant, counter: u64) -> Vec<u8> {
    let mut packet = room(b"text");
    tx.set_counter(0);
    tx.begin_batch(now, 1).unwrap();
    tx.set_counter(counter);
    tx.seal(7, PacketKind::Data, &mut packet).unwrap();
    packet
}

/// Steps the sender `phases` phases on.
fn skip_phases(tx: &mut TxSession, mut now: Instant, phases: u32) -> Instant {
    for _ in 0..phases {
        seal(tx, now);
        now += PHASE_TIME;
        tx.retire_phase(now);
    }
    now
}

#[test]
fn packets_equal_the_model_for_both_aeads() {
    let now = Instant::now();
    for vector in vectors()["vectors"].as_array().unwrap() {
        for expected in vector["packets"].as_array().unwrap() {
            let aead = AeadId::from_u8(expected["aead"].as_u64().unwrap() as u8).unwrap();
            let (sender, receiver) = match expected["direction"].as_u64() {
                Some(0) => (Role::Initiator, Role::Responder),
                _ => (Role::Responder, Role::Initiator),
            };
            let (a, b) = (parts_of(vector, sender), parts_of(vector, receiver));
            let mut tx = TxSession::new(aead, a.tx_header, a.tx, now);
            let mut rx = RxSession::new(aead, b.rx_header, b.rx, WINDOW_BITS, now);
            let at = skip_phases(&mut tx, now, expected["phase"].as_u64().unwrap() as u32);
            let kind = PacketKind::from_u8(expected["kind"].as_u64().unwrap() as u8).unwrap();
            let mut packet = room(&bytes(&expected["plaintext"]));
            tx.begin_batch(at, 1).unwrap();
            tx.set_counter(expected["counter"].as_u64().unwrap());
            tx.seal(expected["receiver"].as_u64().unwrap() as u32, kind, &mut packet).unwrap();
            assert_eq!(packet, bytes(&expected["wire"]));
            let opened = rx.open(at, &mut packet).unwrap();
            assert_eq!((opened.kind, &*opened.plaintext), (kind, &bytes(&expected["plaintext"])[..]));
        }
    }
}

#[test]
fn packets_masked_and_unmasked_side_by_side_are_those_of_one_by_one() {
    let now = Instant::now();
    let ((mut one, _), (mut batch, mut rx)) = (pair(now), pair(now));
    let (count, len) = (LANES as u8 * 2 + 1, 40);
    let mut storage: Vec<u8> = (0..count).flat_map(|i| room(&vec![i; len])).collect();
    let whole = storage.len() / usize::from(count);
    let ranges: Vec<_> = (0..usize::from(count)).map(|i| i * whole..(i + 1) * whole).collect();
    batch.begin_batch(now, count.into()).unwrap();
    one.begin_batch(now, count.into()).unwrap();
    for range in &ranges {
        batch.seal_unmasked(7, PacketKind::Data, &mut storage[range.clone()]).unwrap();
    }
    batch.mask_all(&mut storage, &ranges);
    for (i, range) in ranges.iter().enumerate() {
        let mut other = room(&vec![i as u8; len]);
        one.seal(7, PacketKind::Data, &mut other).unwrap();
        assert_eq!(storage[range.clone()], other);
    }
    let samples: Vec<_> = ranges.iter().map(|range| *sample_of(&storage[range.clone()]).unwrap()).collect();
    let masks = rx.masks(samples[..LANES].as_chunks().0[0].each_ref());
    for ((i, range), mask) in ranges.iter().enumerate().zip(masks) {
        let opened = rx.open_with(now, &mut storage[range.clone()], Some(mask)).unwrap();
        assert_eq!(opened.plaintext, vec![i as u8; len]);
    }
    let wrong = [masks[0][0] ^ 1; MASK_LEN];
    assert!(rx.open_with(now, &mut storage[ranges[LANES].clone()], Some(wrong)).is_err(), "it is used");
}

#[test]
fn window_edges_are_exact() {
    let now = Instant::now();
    // RFC 6479 gives up one word: the window tracks W - 64 counters exactly.
    let w = (WINDOW_BITS - 64) as u64;
    for newest in [0, w - 1, w, w + 1, 3 * w + 17, COUNTER_MAX - 1] {
        let (mut tx, mut rx) = pair(now);
        rx.open(now, &mut seal_at(&mut tx, now, newest)).unwrap();
        assert_eq!(rx.open(now, &mut seal_at(&mut tx, now, newest)), Err(OpenError::Replay), "{newest}");
        for behind in [1, w - 2, w - 1, w, w + 1, 2 * w, newest] {
            let Some(counter) = newest.checked_sub(behind) else {
                continue;
            };
            if counter == newest {
                continue;
            }
            let expected = if behind < w { Ok(counter) } else { Err(OpenError::TooOld) };
            let opened = rx.open(now, &mut seal_at(&mut tx, now, counter)).map(|opened| opened.counter);
            assert!(opened == expected || (behind == newest && opened == Err(OpenError::Replay)), "{newest} {behind}");
            if opened.is_ok() {
                let again = rx.open(now, &mut seal_at(&mut tx, now, counter)).map(|opened| opened.counter);
                assert_eq!(again, Err(OpenError::Replay));
            }
        }
    }
}

#[test]
fn counters_no_sender_reaches_are_refused_even_when_authentic() {
    let now = Instant::now();
    for counter in [COUNTER_MAX, COUNTER_MAX + 1, u64::MAX - (1 << 13), u64::MAX - 1] {
        let (mut tx, mut rx) = pair(now);
        assert_eq!(rx.open(now, &mut seal_at(&mut tx, now, counter)), Err(OpenError::Auth), "{counter}");
        rx.open(now, &mut seal_at(&mut tx, now, 0)).expect("the window did not move");
    }
}

#[test]
fn a_sender_stops_at_the_counter_limit() {
    let now = Instant::now();
    let (mut tx, _) = pair(now);
    tx.set_counter(COUNTER_MAX - 2);
    assert_eq!(tx.begin_batch(now, 3), Err(SealRefused::CounterExhausted));
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Err(SealRefused::NotAnnounced));
    tx.begin_batch(now, 2).unwrap();
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Ok(COUNTER_MAX - 2));
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Ok(COUNTER_MAX - 1));
    assert_eq!(tx.begin_batch(now, 1), Err(SealRefused::CounterExhausted));
}

#[test]
fn a_sender_stops_when_no_step_completed() {
    let now = Instant::now();
    let (mut tx, _) = pair(now);
    tx.begin_batch(now + EPOCH_HARD - Duration::from_millis(1), 1).unwrap();
    assert_eq!(tx.begin_batch(now + EPOCH_HARD, 1), Err(SealRefused::EpochExpired));
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Err(SealRefused::NotAnnounced));
}

#[test]
fn misuse_of_the_sender_is_refused() {
    let now = Instant::now();
    let (mut tx, _) = pair(now);
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Err(SealRefused::NotAnnounced));
    tx.begin_batch(now, 1).unwrap();
    assert_eq!(tx.seal(1, PacketKind::Data, &mut [0; OVERHEAD - 1]), Err(SealRefused::BadLength));
    tx.seal(1, PacketKind::Data, &mut room(b"")).unwrap();
    assert_eq!(tx.seal(1, PacketKind::Data, &mut room(b"")), Err(SealRefused::NotAnnounced));
}

#[test]
fn phases_step_by_packets_and_by_time_only_when_used() {
    let now = Instant::now();
    let (mut tx, _) = pair(now);
    tx.begin_batch(now + 4 * PHASE_TIME, 1).unwrap();
    assert_eq!(tx.phase(), 0, "an unused phase does not age");
    seal(&mut tx, now + 4 * PHASE_TIME);
    tx.retire_phase(now + 9 * PHASE_TIME);
    assert_eq!(tx.phase(), 1, "a used one is retired once, however long ago");
    seal(&mut tx, now + 9 * PHASE_TIME);
    tx.set_packets(PHASE_PKTS - 4, 0);
    tx.begin_batch(now + 9 * PHASE_TIME, 4).unwrap();
    assert_eq!(tx.phase(), 1);
    tx.begin_batch(now + 9 * PHASE_TIME, 5).unwrap();
    assert_eq!((tx.phase(), tx.wants_step()), (2, false));
    tx.set_packets(0, EPOCH_PKTS);
    assert!(tx.wants_step());
}

#[test]
fn phase_jumps_up_to_eight_open_and_no_further() {
    let now = Instant::now();
    for ahead in 0..=u32::from(PHASE_JUMP_MAX) + 2 {
        let (mut tx, mut rx) = pair(now);
        let at = skip_phases(&mut tx, now, ahead);
        let opened = rx.open(at, &mut seal(&mut tx, at)).map(|_| ());
        if ahead <= u32::from(PHASE_JUMP_MAX) {
            assert_eq!((opened, rx.phase()), (Ok(()), ahead));
        } else {
            assert_eq!((opened, rx.phase()), (Err(OpenError::PhaseJump), 0));
        }
    }
}

#[test]
fn forged_packets_far_ahead_cost_a_bounded_number_of_derivations() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    let at = skip_phases(&mut tx, now, u32::from(READY));
    let mut forged = seal(&mut tx, at);
    *forged.last_mut().unwrap() ^= 1;
    let flood = |now, rx: &mut RxSession| {
        let results: Vec<_> = (0..5000).map(|_| rx.open(now, &mut forged.clone()).unwrap_err()).collect();
        let count = |error| results.iter().filter(|e| **e == error).count();
        (count(OpenError::Auth), count(OpenError::RateLimited))
    };
    assert_eq!(flood(at, &mut rx), (100, 4900), "the burst");
    assert_eq!(flood(at, &mut rx), (0, 5000));
    assert_eq!(flood(at + Duration::from_millis(10), &mut rx), (10, 4990), "1000 a second");
    assert_eq!(rx.open(at, &mut seal(&mut tx, at)), Err(OpenError::RateLimited));
    assert_eq!(rx.phase(), 0, "forgeries moved nothing");
    rx.open(at + Duration::from_secs(1), &mut seal(&mut tx, at)).expect("the flood is over");
}

#[test]
fn a_peer_may_not_step_with_each_packet() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    let step = |tx: &mut TxSession| {
        tx.set_packets(PHASE_PKTS, 0);
        seal(tx, now)
    };
    for phase in 1..=100 {
        rx.open(now, &mut step(&mut tx)).expect("the burst");
        assert_eq!(rx.phase(), phase);
    }
    let of_the_same = seal(&mut tx, now);
    let next = step(&mut tx);
    assert_eq!(rx.open(now, &mut next.clone()), Err(OpenError::RateLimited));
    rx.open(now, &mut of_the_same.clone()).expect("what steps nowhere costs nothing");
    rx.open(now + Duration::from_millis(1), &mut next.clone()).expect("it was not marked");
    assert_eq!((rx.phase(), rx.forged()), (101, 0));
}

#[test]
fn the_window_is_checked_before_any_derivation() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    rx.open(now, &mut seal_at(&mut tx, now, 5)).unwrap();
    let at = skip_phases(&mut tx, now, u32::from(READY));
    // A replayed counter in a phase that would need a derivation takes no token of the budget.
    for _ in 0..1000 {
        assert_eq!(rx.open(at, &mut seal_at(&mut tx, at, 5)), Err(OpenError::Replay));
    }
    rx.open(at, &mut seal_at(&mut tx, at, 6)).expect("the budget is whole");
}

#[test]
fn a_forgery_marks_no_counter_and_commits_no_phase() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    let at = skip_phases(&mut tx, now, 2);
    let packet = seal(&mut tx, at);
    let mut forged = packet.clone();
    forged[HEADER_LEN + 17] ^= 1;
    assert_eq!(rx.open(at, &mut forged), Err(OpenError::Auth));
    assert_eq!((rx.phase(), rx.forged()), (0, 1));
    assert!(rx.open(at, &mut packet.clone()).unwrap().newest);
    assert_eq!(rx.phase(), 2);
}

#[test]
fn previous_keys_open_until_their_time_and_are_then_gone() {
    let now = Instant::now();
    for (keep, kept) in [(0, 1), (3, 3), (60, 10)] {
        let (mut tx, mut rx) = pair(now);
        rx.set_prev_keep(Duration::from_secs(keep));
        let (early, late) = (seal(&mut tx, now), seal(&mut tx, now));
        let at = skip_phases(&mut tx, now, 1);
        rx.open(at, &mut seal(&mut tx, at)).unwrap();
        let end = at + Duration::from_secs(kept);
        assert_eq!(rx.next_expiry(), Some(end));
        assert!(!rx.open(end - Duration::from_millis(1), &mut early.clone()).unwrap().newest);
        assert_eq!(rx.open(end, &mut late.clone()), Err(OpenError::UnknownEpoch));
        assert_eq!(rx.next_expiry(), None, "erased");
    }
}

#[test]
fn overtaken_phases_still_open_within_their_time() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    let mut overtaken = Vec::new();
    let mut at = now;
    for _ in 0..4 {
        overtaken.push(seal(&mut tx, at));
        at = skip_phases(&mut tx, at, 1);
    }
    rx.open(at, &mut seal(&mut tx, at)).unwrap();
    assert_eq!(rx.phase(), 4);
    for mut packet in overtaken {
        rx.open(at, &mut packet).unwrap();
    }
}

#[test]
fn the_forgery_limit_closes_the_session() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    rx.set_forged(FORGERY_LIMIT - 1);
    let mut forged = seal(&mut tx, now);
    *forged.last_mut().unwrap() ^= 1;
    rx.open(now, &mut seal(&mut tx, now)).expect("one below the limit");
    assert_eq!(rx.open(now, &mut forged), Err(OpenError::Auth));
    assert_eq!(rx.open(now, &mut seal(&mut tx, now)), Err(OpenError::ForgeryLimit));
}

#[test]
fn short_packets_and_unknown_kinds_are_refused() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    for len in 0..OVERHEAD {
        assert_eq!(rx.open(now, &mut vec![0x24; len]), Err(OpenError::Short));
    }
    for bit in 1..5 {
        let mut packet = seal(&mut tx, now);
        packet[0] ^= 1 << bit;
        assert_eq!(rx.open(now, &mut packet), Err(OpenError::Auth));
    }
    assert_eq!(rx.forged(), 0, "no key was tried");
    let mut other_kind = seal(&mut tx, now);
    other_kind[0] ^= 1;
    assert_eq!(rx.open(now, &mut other_kind), Err(OpenError::Auth), "the kind is authenticated");
}

#[test]
fn chains_that_do_not_continue_the_session_are_refused() {
    let now = Instant::now();
    let (mut tx, mut rx) = pair(now);
    let again = parts(Role::Initiator);
    assert_eq!(tx.start_epoch(again.tx, now), Err(EpochMismatch::Epoch { current: 0, got: 0 }));
    assert_eq!(tx.start_epoch(again.rx, now), Err(EpochMismatch::Direction(Direction::ResponderToInitiator)));
    let foreign = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([3; 64]), None);
    let foreign = foreign.into_parts(Role::Responder);
    assert_eq!(rx.stage_epoch(foreign.rx, now), Err(EpochMismatch::Session));
    rx.open(now, &mut seal(&mut tx, now)).expect("nothing changed");
}
