// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever an honest network does, every packet that arrives in time decrypts exactly once.

use crate::peers::{Dice, pair, step};
use pqvpn_crypto::aead::AeadId;
use pqvpn_dataplane::session::{OpenError, PHASE_TIME};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// What happens next at the sender.
#[derive(Debug, Clone)]
enum Op {
    /// `gap` ms later a packet is sent; its copies arrive after these delays in ms.
    Packet { gap: u64, copies: Vec<u64> },
    /// `gap` ms later a ratchet step completes.
    Step { gap: u64 },
}

fn gap() -> impl Strategy<Value = u64> {
    // Mostly close together, sometimes across the end of a phase.
    prop_oneof![8 => 0_u64..40, 2 => 14_500_u64..15_500, 1 => 0_u64..60_000]
}

fn op() -> impl Strategy<Value = Op> {
    // Delays stay below PREV_KEEP's lower bound of 1 s: later arrivals are not promised.
    let copies = prop_oneof![
        1 => Just(vec![]),
        8 => prop::collection::vec(0_u64..999, 1..2),
        2 => prop::collection::vec(0_u64..999, 2..4),
    ];
    prop_oneof![
        12 => (gap(), copies).prop_map(|(gap, copies)| Op::Packet { gap, copies }),
        1 => gap().prop_map(|gap| Op::Step { gap }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_arrived_packet_decrypts_exactly_once(ops in prop::collection::vec(op(), 1..120), aes: bool) {
        run(&ops, if aes { AeadId::Aes256Gcm } else { AeadId::ChaCha20Poly1305 });
    }
}

/// Runs a schedule in virtual time.
fn run(ops: &[Op], aead: AeadId) {
    let start = Instant::now();
    let mut peers = pair(aead, start);
    let mut flying: BTreeMap<(u64, usize), (u64, Vec<u8>)> = BTreeMap::new();
    let mut seen = HashSet::new();
    let (mut now, mut number, mut last_step): (u64, usize, Option<u64>) = (0, 0, None);
    for op in ops {
        let (Op::Packet { gap, .. } | Op::Step { gap }) = op;
        now += gap;
        deliver(&mut peers[1], start, &mut flying, now, &mut seen);
        let at = start + Duration::from_millis(now);
        if now - last_step.unwrap_or(0) > 500_000 {
            // A session in use always steps before EPOCH_HARD.
            step(&mut peers, at);
            last_step = Some(now);
        }
        match op {
            Op::Step { .. } => {
                // Old keys fade for 1 s; a real step is at least REQUEST_GAP and 108 s away from the next.
                if last_step.is_none_or(|last| now - last >= 1000) {
                    step(&mut peers, at);
                    last_step = Some(now);
                }
            }
            Op::Packet { copies, .. } => {
                let packet = peers[0].seal(at, &(number as u64).to_be_bytes());
                for (copy, delay) in copies.iter().enumerate() {
                    flying.insert((now + delay, number * 4 + copy), (now + delay, packet.clone()));
                }
                number += 1;
            }
        }
    }
    deliver(&mut peers[1], start, &mut flying, now + 1000, &mut seen);
    let arrived = ops.iter().filter(|op| matches!(op, Op::Packet { copies, .. } if !copies.is_empty())).count();
    assert_eq!(seen.len(), arrived);
}

/// Delivers what arrives until `until`; the first copy of each packet must open, later ones must not.
fn deliver(
    receiver: &mut crate::peers::Peer,
    start: Instant,
    flying: &mut BTreeMap<(u64, usize), (u64, Vec<u8>)>,
    until: u64,
    seen: &mut HashSet<u64>,
) {
    while let Some(entry) = flying.first_entry()
        && entry.key().0 <= until
    {
        let ((at, id), (_, mut packet)) = entry.remove_entry();
        let now = start + Duration::from_millis(at);
        let number = (id / 4) as u64;
        match receiver.rx.open(now, &mut packet) {
            Ok(opened) => {
                assert_eq!(*opened.plaintext, number.to_be_bytes());
                let first = opened.first_of_epoch;
                assert!(seen.insert(number), "packet {number} opened twice");
                if let Some(epoch) = first {
                    receiver.ratchet.on_epoch_packet(now, epoch);
                }
            }
            Err(error) => {
                assert!(seen.contains(&number), "packet {number} arrived and was refused: {error}");
                assert!(matches!(error, OpenError::Replay | OpenError::TooOld | OpenError::UnknownEpoch));
            }
        }
    }
}

#[test]
fn a_long_session_loses_nothing_to_rekeying() {
    const PACKETS: usize = 200_000;
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let mut dice = Dice(1);
    // 15 ms between packets: a phase of 15 s lasts 1000 packets; reordering up to 64 packets = 960 ms.
    let mut flying: BTreeMap<(u64, usize), (u64, Vec<u8>)> = BTreeMap::new();
    let (mut arrived, mut opened, mut replays, mut late) = (0, HashSet::new(), 0, 0);
    let mut counters = HashSet::new();
    for number in 0..PACKETS {
        let now = number as u64 * 15;
        let at = start + Duration::from_millis(now);
        if number % 5_000 == 2_500 {
            step(&mut peers, at);
        }
        let packet = peers[0].seal(at, &(number as u64).to_be_bytes());
        assert!(counters.insert(peers[0].tx.counter()), "a counter was used twice");
        if dice.below(10) > 0 {
            arrived += 1;
            flying.insert((now + 15 * dice.below(64) as u64, number * 2), (now, packet.clone()));
            if dice.below(50) == 0 {
                flying.insert((now + 1000 + 15 * dice.below(200) as u64, number * 2 + 1), (now, packet));
            }
        }
        while let Some(entry) = flying.first_entry()
            && (entry.key().0 <= now || number + 1 == PACKETS)
        {
            let ((time, id), (_, mut packet)) = entry.remove_entry();
            match peers[1].rx.open(start + Duration::from_millis(time), &mut packet) {
                Ok(packet) => {
                    assert_eq!(*packet.plaintext, (id as u64 / 2).to_be_bytes());
                    assert!(opened.insert(id / 2));
                }
                Err(OpenError::Replay | OpenError::TooOld) if id % 2 == 1 => replays += 1,
                Err(_) if id % 2 == 1 => late += 1,
                Err(error) => panic!("packet {} lost to {error}", id / 2),
            }
        }
    }
    println!(
        "{PACKETS} sent, {arrived} arrived, {} opened once, {replays} repeats refused, {late} repeats after their key; \
         epoch {}, phase {}",
        opened.len(),
        peers[1].rx.epoch(),
        peers[1].rx.phase()
    );
    assert_eq!((opened.len(), peers[1].rx.epoch()), (arrived, 40));
}

#[test]
fn a_hundred_steps_under_reordering_in_both_directions_lose_nothing() {
    let start = Instant::now();
    let mut peers = pair(AeadId::Aes256Gcm, start);
    let mut dice = Dice(7);
    for round in 0..100_u64 {
        let now = start + Duration::from_secs(2 * round);
        let mut sealed: [Vec<Vec<u8>>; 2] = Default::default();
        for (side, sealed) in sealed.iter_mut().enumerate() {
            sealed.extend((0..20_u8).map(|i| peers[side].seal(now, &[i])));
        }
        step(&mut peers, now);
        for (side, sealed) in sealed.iter_mut().enumerate() {
            sealed.extend((0..20_u8).map(|i| peers[side].seal(now, &[i])));
            while !sealed.is_empty() {
                let mut packet = sealed.swap_remove(dice.below(sealed.len()));
                peers[1 - side].rx.open(now, &mut packet).unwrap();
            }
        }
    }
    assert_eq!((peers[0].rx.epoch(), peers[1].rx.epoch()), (100, 100));
}

#[test]
fn a_side_that_never_sends_in_an_epoch_does_not_block_the_next() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let early = peers[1].seal(start, b"early");
    for round in 1..=5 {
        step(&mut peers, start + PHASE_TIME * round);
    }
    let now = start + PHASE_TIME * 6;
    let mut packet = peers[1].seal(now, b"late");
    assert_eq!(peers[0].rx.open(now, &mut packet).unwrap().first_of_epoch, Some(5));
    assert_eq!(peers[0].rx.open(now, &mut early.clone()), Err(OpenError::UnknownEpoch));
}
