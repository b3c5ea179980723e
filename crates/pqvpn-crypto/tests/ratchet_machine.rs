// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ratchet as its owner sees it: two machines, one virtual clock, every message in the test's hands.

#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on has nothing better to do")]

#[path = "ratchet_machine/attacks.rs"]
mod attacks;
#[path = "ratchet_machine/pair.rs"]
mod pair;

use pair::{Pair, outputs, seed, sent};
use pqvpn_crypto::ratchet::machine::{
    EPOCH_HARD, EpochTime, R1_LEN, R2_LEN, R3_LEN, REQUEST_GAP, REQUEST_LEN, RETRIES, RETRY_TIME, Ratchet,
    RatchetAbort, RatchetOutput,
};
use pqvpn_crypto::schedule::Role;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn leaders_alternate_and_both_sides_agree() {
    let mut pair = Pair::new();
    for epoch in 1..=6 {
        let leader = usize::from(epoch % 2 == 0);
        pair.sides[leader].request_step(pair.now);
        assert_eq!(pair.run(), [(leader, 1, R1_LEN), (1 - leader, 2, R2_LEN), (leader, 3, R3_LEN)]);
        pair.assert_agree(epoch);
    }
}

#[test]
fn resume_psk_and_control_mac_change_with_every_step() {
    let mut pair = Pair::new();
    let secrets = |pair: &Pair| {
        let side = &pair.sides[0];
        (*side.resume_psk().unwrap().expose(), side.ctrl_mac(b"policy").unwrap())
    };
    let before = secrets(&pair);
    pair.step();
    let after = secrets(&pair);
    assert!(before.0 != after.0 && before.1 != after.1 && before.0 != before.1);
    assert_ne!(pair.sides[0].ctrl_mac(b"policy"), pair.sides[1].ctrl_mac(b"policz"));
}

#[test]
fn a_sender_switches_only_when_the_peer_can_decrypt() {
    let mut pair = Pair::new();
    pair.sides[0].request_step(pair.now);
    let r1 = sent(outputs(&mut pair.sides[0]));
    pair.sides[1].handle_message(pair.now, &r1).unwrap();
    let follower = outputs(&mut pair.sides[1]);
    assert!(matches!(&follower[..], [RatchetOutput::StageRx(rx), RatchetOutput::Send(_)] if rx.epoch() == 1));
    pair.sides[0].handle_message(pair.now, &sent(follower)).unwrap();
    let leader = outputs(&mut pair.sides[0]);
    assert!(matches!(
        &leader[..],
        [RatchetOutput::StageRx(_), RatchetOutput::Send(_), RatchetOutput::StartTx(tx)] if tx.epoch() == 1
    ));
    assert_eq!(pair.sides[1].epoch(), Some(0));
    pair.sides[1].handle_message(pair.now, &sent(leader)).unwrap();
    assert!(matches!(&outputs(&mut pair.sides[1])[..], [RatchetOutput::StartTx(tx)] if tx.epoch() == 1));
}

#[test]
fn the_first_packet_of_the_epoch_confirms_like_r3() {
    let mut pair = Pair::new();
    pair.sides[0].request_step(pair.now);
    let r1 = sent(outputs(&mut pair.sides[0]));
    pair.sides[1].handle_message(pair.now, &r1).unwrap();
    let r2 = sent(outputs(&mut pair.sides[1]));
    pair.sides[0].handle_message(pair.now, &r2).unwrap();
    let r3 = sent(outputs(&mut pair.sides[0]));
    pair.sides[1].on_epoch_packet(pair.now, 0);
    assert!(outputs(&mut pair.sides[1]).is_empty(), "a packet of the old epoch confirms nothing");
    pair.sides[1].on_epoch_packet(pair.now, 1);
    assert!(matches!(&outputs(&mut pair.sides[1])[..], [RatchetOutput::StartTx(_)]));
    pair.sides[1].handle_message(pair.now, &r3).expect("the late R3 is the expected one");
    let mut wrong = r3;
    wrong[20] ^= 1;
    assert_eq!(pair.sides[1].handle_message(pair.now, &wrong), Err(RatchetAbort::MacFailure));
}

#[test]
fn an_idle_session_never_steps_by_time() {
    let mut pair = Pair::new();
    for side in 0..2 {
        assert_eq!(pair.sides[side].poll_timeout(), None);
        pair.sides[side].handle_timeout(pair.now + 300 * SECOND);
        assert!(outputs(&mut pair.sides[side]).is_empty());
    }
    pair.sides[0].note_traffic(pair.now + 300 * SECOND);
    let r1 = sent(outputs(&mut pair.sides[0]));
    assert_eq!(r1.len(), R1_LEN, "the first packet after the time steps at once");
}

#[test]
fn traffic_of_one_epoch_does_not_step_the_next() {
    let mut pair = Pair::new();
    pair.sides[0].note_traffic(pair.now);
    pair.now = pair.sides[0].poll_timeout().unwrap();
    pair.sides[0].handle_timeout(pair.now);
    pair.run();
    pair.assert_agree(1);
    assert_eq!([pair.sides[0].poll_timeout(), pair.sides[1].poll_timeout()], [None, None]);
}

#[test]
fn step_times_lie_within_ten_percent_and_spread() {
    let now = Instant::now();
    let mut times = std::collections::BTreeSet::new();
    for jitter in 0..200 {
        let mut ratchet = Ratchet::new(Role::Initiator, seed(Role::Initiator), now, jitter);
        ratchet.note_traffic(now);
        let wait = ratchet.poll_timeout().unwrap() - now;
        assert!((108 * SECOND..=132 * SECOND).contains(&wait), "{wait:?}");
        times.insert(wait);
    }
    assert!(times.len() > 100, "{} different times", times.len());
}

#[test]
fn epoch_time_has_bounds() {
    assert_eq!(EpochTime::from_secs(0), None);
    assert_eq!(EpochTime::from_secs(301), None);
    assert_eq!(EpochTime::default().as_duration(), 120 * SECOND);
    let slowest = EpochTime::from_secs(EpochTime::MAX_SECS).unwrap().as_duration().mul_f64(1.1 * 1.5);
    assert!(slowest + RETRY_TIME * (u32::from(RETRIES) + 1) < EPOCH_HARD);
    let now = Instant::now();
    let mut ratchet = Ratchet::new(Role::Initiator, seed(Role::Initiator), now, 3);
    ratchet.set_epoch_time(EpochTime::from_secs(1).unwrap());
    ratchet.note_traffic(now);
    assert!(ratchet.poll_timeout().unwrap() <= now + SECOND.mul_f64(1.1));
}

#[test]
fn a_follower_asks_late_and_the_leader_obeys() {
    let mut pair = Pair::new();
    pair.sides[1].note_traffic(pair.now);
    let due = pair.sides[1].poll_timeout().unwrap();
    assert!((162 * SECOND..=198 * SECOND).contains(&(due - pair.now)));
    pair.now = due;
    pair.sides[1].handle_timeout(due);
    let kinds = pair.run();
    assert_eq!(kinds, [(1, 4, REQUEST_LEN), (0, 1, R1_LEN), (1, 2, R2_LEN), (0, 3, R3_LEN)]);
    pair.assert_agree(1);
}

#[test]
fn requests_cannot_make_a_leader_step_more_than_once_a_second() {
    let mut pair = Pair::new();
    pair.sides[1].request_step(pair.now);
    let request = sent(outputs(&mut pair.sides[1]));
    pair.now += REQUEST_GAP / 2;
    pair.sides[0].handle_message(pair.now, &request).unwrap();
    assert!(outputs(&mut pair.sides[0]).is_empty());
    let due = pair.sides[0].poll_timeout().unwrap();
    pair.sides[0].handle_timeout(due);
    assert_eq!(sent(outputs(&mut pair.sides[0])).len(), R1_LEN);
}

#[test]
fn silence_repeats_the_same_bytes_three_times_then_reconnects() {
    for message in ["R1", "R2", "request"] {
        let mut pair = Pair::new();
        let side = usize::from(message != "R1");
        pair.sides[usize::from(message == "request")].request_step(pair.now);
        if message == "R2" {
            let r1 = sent(outputs(&mut pair.sides[0]));
            pair.sides[1].handle_message(pair.now, &r1).unwrap();
        }
        let first = sent(outputs(&mut pair.sides[side]));
        for _ in 0..RETRIES {
            assert_eq!(pair.sides[side].poll_timeout(), Some(pair.now + RETRY_TIME));
            pair.now += RETRY_TIME;
            pair.sides[side].handle_timeout(pair.now);
            assert_eq!(sent(outputs(&mut pair.sides[side])), first, "{message}");
        }
        pair.now += RETRY_TIME;
        pair.sides[side].handle_timeout(pair.now);
        assert!(matches!(&outputs(&mut pair.sides[side])[..], [RatchetOutput::Reconnect]), "{message}");
        assert_eq!(pair.sides[side].poll_timeout(), None, "{message}: asked once, not for ever");
    }
}

#[test]
fn repeated_messages_are_answered_with_the_same_bytes() {
    let mut pair = Pair::new();
    pair.sides[0].request_step(pair.now);
    let r1 = sent(outputs(&mut pair.sides[0]));
    let answer = |pair: &mut Pair, side: usize, message: &[u8]| {
        pair.sides[side].handle_message(pair.now, message).unwrap();
        outputs(&mut pair.sides[side])
    };
    let r2 = sent(answer(&mut pair, 1, &r1));
    assert!(matches!(&answer(&mut pair, 1, &r1)[..], [RatchetOutput::Send(again)] if *again == r2));
    let r3 = sent(answer(&mut pair, 0, &r2));
    assert!(matches!(&answer(&mut pair, 0, &r2)[..], [RatchetOutput::Send(again)] if *again == r3));
    answer(&mut pair, 1, &r3);
    assert!(answer(&mut pair, 1, &r3).is_empty());
    assert!(matches!(&answer(&mut pair, 1, &r1)[..], [RatchetOutput::Send(again)] if *again == r2));
    pair.assert_agree(1);
    pair.step();
    for (side, old) in [(1, &r1), (0, &r2), (1, &r3)] {
        assert!(answer(&mut pair, side, old).is_empty(), "messages of past steps do nothing");
    }
    pair.assert_agree(2);
}

#[test]
fn a_session_that_slept_too_long_reconnects_instead_of_stepping() {
    let mut pair = Pair::new();
    for side in 0..2 {
        pair.sides[side].note_traffic(pair.now + EPOCH_HARD);
        assert!(matches!(&outputs(&mut pair.sides[side])[..], [RatchetOutput::Reconnect]), "side {side}");
        pair.sides[side].note_traffic(pair.now + EPOCH_HARD + SECOND);
        pair.sides[side].handle_timeout(pair.now + EPOCH_HARD + SECOND);
        assert!(outputs(&mut pair.sides[side]).is_empty());
    }
}
