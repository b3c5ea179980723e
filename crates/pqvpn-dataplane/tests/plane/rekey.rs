// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epochs change under traffic without a lost packet.

use std::time::Instant;

use pqvpn_crypto::{
    ratchet::machine::{Ratchet, RatchetOutput},
    schedule::Role,
};
use pqvpn_dataplane::{EpochError, Event, SessionId};

use crate::{
    harness::{Keys, Node, nodes},
    packets::{EXPERIMENT, ip, payload, plain},
};

const SESSION: SessionId = SessionId(1);

/// Carries out what a ratchet wants; gives its messages.
fn obey(ratchet: &mut Ratchet, node: &Node) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(output) = ratchet.poll_output() {
        if let RatchetOutput::Send(message) = output {
            messages.push(message);
        } else if let RatchetOutput::StageRx(chain) = output {
            node.control.stage_rx(SESSION, chain).unwrap();
        } else if let RatchetOutput::StartTx(chain) = output {
            node.control.start_tx(SESSION, chain).unwrap();
        } else {
            panic!("the ratchet gave up");
        }
    }
    messages
}

fn exchange(from: &Node, to: &Node, side: usize, i: usize) {
    let [a, b] = [["10.9.0.1", "10.9.0.2"], ["10.9.0.2", "10.9.0.1"]][side];
    let packet = plain(&ip(a, b, EXPERIMENT, &payload(200, i)));
    from.tun.inject(&packet);
    assert_eq!(to.collect(), packet);
}

#[test]
fn epochs_change_under_traffic_and_are_reported() {
    let (a, b) = nodes();
    let keys = Keys::new(3);
    let now = Instant::now();
    let seed = a.install(1, keys.initiator, Role::Initiator, b.addr, true);
    let mut ratchet_a = Ratchet::new(Role::Initiator, seed, now, 1);
    let seed = b.install(1, keys.responder, Role::Responder, a.addr, true);
    let mut ratchet_b = Ratchet::new(Role::Responder, seed, now, 2);
    for epoch in 1..=6 {
        if epoch % 2 == 1 {
            ratchet_a.request_step(now)
        } else {
            ratchet_b.request_step(now)
        }
        loop {
            let (to_b, to_a) = (obey(&mut ratchet_a, &a), obey(&mut ratchet_b, &b));
            exchange(&a, &b, 0, epoch);
            exchange(&b, &a, 1, epoch);
            if to_a.is_empty() && to_b.is_empty() {
                break;
            }
            to_b.iter().for_each(|message| ratchet_b.handle_message(now, message).unwrap());
            to_a.iter().for_each(|message| ratchet_a.handle_message(now, message).unwrap());
        }
        let epoch = u32::try_from(epoch).unwrap();
        for node in [&a, &b] {
            assert_eq!(node.control.session_info(SESSION).unwrap().epoch, epoch);
            let seen = Event::EpochSeen { session: SESSION, epoch };
            node.events.expect(|event| (format!("{event:?}") == format!("{seen:?}")).then_some(()));
            node.control.retire_keys();
        }
    }
    assert_eq!(a.control.drops().total() + b.control.drops().total(), 0, "no packet is lost to rekeying");
}

#[test]
fn a_chain_for_no_session_or_the_wrong_epoch_is_refused() {
    let (a, b) = nodes();
    let keys = Keys::new(3);
    let now = Instant::now();
    let seed = a.install(1, keys.initiator, Role::Initiator, b.addr, true);
    let mut ratchet_a = Ratchet::new(Role::Initiator, seed, now, 1);
    let mut ratchet_b = Ratchet::new(Role::Responder, keys.responder.ratchet, now, 2);
    ratchet_a.request_step(now);
    let mut refused = 0;
    while let Some(RatchetOutput::Send(message)) = ratchet_a.poll_output() {
        ratchet_b.handle_message(now, &message).unwrap();
        while let Some(output) = ratchet_b.poll_output() {
            let RatchetOutput::StageRx(chain) = output else { continue };
            // The chain the responder receives with is the one the initiator sends with.
            assert!(matches!(a.control.stage_rx(SESSION, chain), Err(EpochError::Mismatch(_))));
            refused += 1;
        }
    }
    assert_eq!(refused, 1);
    let keys = Keys::new(4);
    let mut ratchet_a = Ratchet::new(Role::Initiator, keys.initiator.ratchet, now, 1);
    let mut ratchet_b = Ratchet::new(Role::Responder, keys.responder.ratchet, now, 2);
    ratchet_a.request_step(now);
    while let Some(RatchetOutput::Send(message)) = ratchet_a.poll_output() {
        ratchet_b.handle_message(now, &message).unwrap();
        while let Some(output) = ratchet_b.poll_output() {
            let RatchetOutput::StageRx(chain) = output else { continue };
            let unknown = SessionId(9);
            assert_eq!(b.control.stage_rx(unknown, chain), Err(EpochError::UnknownSession(unknown)));
        }
    }
}
