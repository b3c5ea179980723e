// SPDX-License-Identifier: MIT OR Apache-2.0
//! Millions of packets that nobody sent: none is accepted, each is counted under its reason, and the session goes on.

use crate::peers::{Dice, Peer, pair, step};
use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::session::{OpenError, PHASE_TIME};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MILLION: usize = 1_000_000;

/// Results by reason.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    /// Opens a packet and counts the outcome; a plaintext would be a broken session.
    fn open(&mut self, victim: &mut Peer, now: Instant, packet: &mut [u8]) {
        let reason = match victim.rx.open(now, packet) {
            Ok(_) => "ACCEPTED".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        *self.0.entry(reason).or_default() += 1;
    }

    fn assert_all_refused(&self, what: &str, total: usize) {
        println!("{what:<40} {total:>8}  {:?}", self.0);
        assert!(!self.0.contains_key("ACCEPTED"), "{what}");
        assert_eq!(self.0.values().sum::<usize>(), total);
    }
}

/// Packets of every key the receiver may hold: earlier and current phase, ready phases, staged epoch.
fn originals(peers: &mut [Peer; 2], start: Instant) -> (Vec<Vec<u8>>, Instant) {
    let mut packets = Vec::new();
    let mut now = start;
    let mut some = |peer: &mut Peer, now| {
        packets.extend((0..200_usize).map(|i| peer.seal(now, &vec![i as u8; [0, 1, 16, 40, 120][i % 5]])));
    };
    some(&mut peers[0], now);
    now += PHASE_TIME;
    some(&mut peers[0], now);
    let mut first = peers[0].seal(now, b"");
    peers[1].rx.open(now, &mut first).unwrap();
    step(peers, now);
    some(&mut peers[0], now);
    now += PHASE_TIME;
    some(&mut peers[0], now);
    (packets, start + PHASE_TIME + Duration::from_millis(500))
}

/// Changes a packet in one of the ways a network can.
fn mutate(dice: &mut Dice, packet: &mut Vec<u8>, other: &[u8]) {
    let before = packet.clone();
    let at = dice.below(packet.len());
    match dice.below(10) {
        0..=3 => packet[at] ^= 1 << dice.below(8),
        4 => packet[dice.below(16)] = dice.next() as u8,
        5 => packet.truncate(at),
        6 => packet.extend_from_slice(&dice.next().to_be_bytes()[..=dice.below(8)]),
        7 => packet[..16].copy_from_slice(&other[..16]),
        8 => packet[16..].iter_mut().for_each(|byte| *byte = dice.next() as u8),
        _ => {
            let tag = packet.len() - 16;
            packet[tag..].copy_from_slice(&other[other.len() - 16..]);
        }
    }
    if *packet == before {
        packet[at] ^= 0x80;
    }
}

#[test]
fn a_million_mutated_packets() {
    for (aead, total) in [(AeadId::ChaCha20Poly1305, MILLION), (AeadId::Aes256Gcm, MILLION / 5)] {
        let start = Instant::now();
        let mut peers = pair(aead, start);
        let (packets, now) = originals(&mut peers, start);
        let mut dice = Dice(3);
        let mut tally = Tally::default();
        let mut buffer = Vec::new();
        for _ in 0..total {
            buffer.clone_from(&packets[dice.below(packets.len())]);
            let other = dice.below(packets.len());
            mutate(&mut dice, &mut buffer, &packets[other]);
            tally.open(&mut peers[1], now, &mut buffer);
        }
        tally.assert_all_refused(&format!("mutated, {}", aead.name()), total);
        // The forgeries moved nothing: every original still opens, once.
        for packet in &packets {
            peers[1].rx.open(now, &mut packet.clone()).unwrap();
            assert_eq!(peers[1].rx.open(now, &mut packet.clone()), Err(OpenError::Replay));
        }
    }
}

#[test]
fn a_million_replayed_packets() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let (mut packets, now) = originals(&mut peers, start);
    let later = now + PHASE_TIME;
    packets.extend((0..12_000_u32).map(|i| peers[0].seal(later, &i.to_be_bytes())));
    for packet in &packets {
        peers[1].rx.open(now, &mut packet.clone()).unwrap();
    }
    let mut dice = Dice(4);
    let mut tally = Tally::default();
    let mut buffer = Vec::new();
    for _ in 0..MILLION {
        buffer.clone_from(&packets[dice.below(packets.len())]);
        tally.open(&mut peers[1], now, &mut buffer);
    }
    tally.assert_all_refused("replayed", MILLION);
    assert!(tally.0.keys().all(|reason| reason == "Replay" || reason == "TooOld"), "no AEAD pass was spent");
    assert_eq!(peers[1].rx.forged(), 0);
}

#[test]
fn a_hundred_thousand_packets_of_the_wrong_session() {
    const EACH: usize = 100_000;
    let start = Instant::now();
    let [mut sender, mut victim] = pair(AeadId::ChaCha20Poly1305, start);
    victim.rx.open(start, &mut sender.seal(start, b"first")).unwrap();
    let foreign = Peer::new(Role::Initiator, 2, AeadId::ChaCha20Poly1305, start);
    let other_aead = Peer::new(Role::Initiator, 1, AeadId::Aes256Gcm, start);
    let mut cast = [victim, foreign, other_aead];
    for (source, what) in
        ["reflected to its sender", "wrong or old session", "same session, other AEAD"].iter().enumerate()
    {
        let mut tally = Tally::default();
        for _ in 0..EACH {
            let mut packet = cast[source].seal(start, b"not for you");
            tally.open(&mut cast[0], start, &mut packet);
        }
        tally.assert_all_refused(what, EACH);
    }
}

#[test]
fn a_forged_packet_of_a_staged_epoch_does_not_end_the_current_one() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let old = peers[0].seal(start, b"still under way");
    step(&mut peers, start);
    let mut forged = peers[0].seal(start, b"first of the next");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(peers[1].rx.open(start, &mut forged), Err(OpenError::Auth));
    assert_eq!((peers[1].rx.epoch(), peers[1].rx.next_expiry()), (0, None));
    // Long after any previous key would have faded, the old epoch is still the current one.
    peers[1].rx.open(start + 2 * PHASE_TIME, &mut old.clone()).unwrap();
}

#[test]
fn a_hundred_thousand_random_datagrams() {
    let start = Instant::now();
    let [_, mut victim] = pair(AeadId::ChaCha20Poly1305, start);
    let mut dice = Dice(5);
    let mut tally = Tally::default();
    for _ in 0..100_000 {
        let mut garbage: Vec<u8> = (0..dice.below(90)).map(|_| dice.next() as u8).collect();
        tally.open(&mut victim, start, &mut garbage);
    }
    tally.assert_all_refused("random bytes", 100_000);
}
