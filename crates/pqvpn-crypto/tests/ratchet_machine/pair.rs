// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two ratchets of one session and a wire in the test's hands.

use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_crypto::ratchet::machine::{REQUEST_GAP, Ratchet, RatchetOutput};
use pqvpn_crypto::schedule::{Exporter, RatchetSeed, Role, SessionSecrets, Transcript};
use std::time::Instant;

/// Two ratchets of one session.
pub(crate) struct Pair {
    pub(crate) sides: [Ratchet; 2],
    pub(crate) now: Instant,
    /// Flip a bit of this byte of this message kind on its way.
    pub(crate) tamper: Option<(u8, usize)>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let side = |role| Ratchet::new(role, seed(role), now, 7);
        Self { sides: [side(Role::Initiator), side(Role::Responder)], now, tamper: None }
    }

    /// Carries messages until both are quiet; returns (sender, kind, length) of each.
    pub(crate) fn run(&mut self) -> Vec<(usize, u8, usize)> {
        let mut carried = Vec::new();
        loop {
            let before = carried.len();
            for side in 0..2 {
                for output in outputs(&mut self.sides[side]) {
                    let RatchetOutput::Send(mut message) = output else {
                        continue;
                    };
                    carried.push((side, message[0], message.len()));
                    if let Some((kind, at)) = self.tamper
                        && message[0] == kind
                    {
                        message[at] ^= 1;
                    }
                    if message[0] == 4 {
                        self.now += REQUEST_GAP;
                    }
                    let refused = self.sides[1 - side].handle_message(self.now, &message);
                    assert!(refused.is_ok() || self.tamper.is_some(), "{refused:?}");
                }
            }
            if carried.len() == before {
                return carried;
            }
        }
    }

    /// One whole step by whoever leads.
    pub(crate) fn step(&mut self) {
        let leader = self.sides[0].epoch().unwrap() % 2;
        self.sides[leader as usize].request_step(self.now);
        self.run();
    }

    pub(crate) fn assert_agree(&self, epoch: u32) {
        let [a, b] = &self.sides;
        assert_eq!((a.epoch(), b.epoch()), (Some(epoch), Some(epoch)));
        assert_eq!(a.resume_psk().unwrap().expose(), b.resume_psk().unwrap().expose());
        assert_eq!(a.ctrl_mac(b"x"), b.ctrl_mac(b"x"));
    }
}

fn secrets() -> SessionSecrets {
    SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None)
}

pub(crate) fn seed(role: Role) -> RatchetSeed {
    secrets().into_parts(role).ratchet
}

pub(crate) fn tx_chain() -> EpochChain {
    secrets().into_parts(Role::Initiator).tx
}

pub(crate) fn outputs(ratchet: &mut Ratchet) -> Vec<RatchetOutput> {
    std::iter::from_fn(|| ratchet.poll_output()).collect()
}

/// The one message among the outputs.
pub(crate) fn sent(outputs: Vec<RatchetOutput>) -> Vec<u8> {
    let mut sent = outputs.into_iter().filter_map(|output| match output {
        RatchetOutput::Send(message) => Some(message),
        RatchetOutput::StageRx(_) | RatchetOutput::StartTx(_) | RatchetOutput::Reconnect | RatchetOutput::Abort(_) => {
            None
        }
    });
    let message = sent.next().expect("a message was sent");
    assert!(sent.next().is_none(), "only one message was sent");
    message
}

pub(crate) fn chains(outputs: Vec<RatchetOutput>) -> Vec<EpochChain> {
    let chain = |output| match output {
        RatchetOutput::StageRx(chain) | RatchetOutput::StartTx(chain) => Some(chain),
        RatchetOutput::Send(_) | RatchetOutput::Reconnect | RatchetOutput::Abort(_) => None,
    };
    outputs.into_iter().filter_map(chain).collect()
}

/// Whether one chain opens what the other seals.
pub(crate) fn same_keys(a: &EpochChain, b: &EpochChain) -> bool {
    let mut packet = b"text and room for the tag.......".to_vec();
    let (text, tag) = packet.split_at_mut(16);
    tag.copy_from_slice(&a.data_key(AeadId::ChaCha20Poly1305).seal_in_place(5, &[0; 16], text).unwrap());
    b.data_key(AeadId::ChaCha20Poly1305).open_in_place(5, &[0; 16], &mut packet).is_ok()
}
