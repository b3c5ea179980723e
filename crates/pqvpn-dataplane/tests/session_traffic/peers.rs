// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two peers of one session with their ratchets, and a small reproducible generator.

use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_crypto::ratchet::machine::{Ratchet, RatchetOutput};
use pqvpn_crypto::schedule::{Exporter, Role, SessionSecrets, Transcript};
use pqvpn_dataplane::session::{RxSession, TxSession};
use pqvpn_packet::header::{HEADER_LEN, PacketKind, TAG_LEN};
use pqvpn_packet::replay::WINDOW_BITS;
use std::time::Instant;

/// One side of a session.
pub(crate) struct Peer {
    pub(crate) tx: TxSession,
    pub(crate) rx: RxSession,
    pub(crate) ratchet: Ratchet,
}

impl Peer {
    /// The side `role` of the session number `session`; the same number gives the same secrets.
    pub(crate) fn new(role: Role, session: u8, aead: AeadId, now: Instant) -> Self {
        let exporter = Exporter::from_bytes([session; 64]);
        let secrets = SessionSecrets::derive(exporter, Transcript::from_bytes([!session; 64]), None);
        let parts = secrets.into_parts(role);
        Self {
            tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
            rx: RxSession::new(aead, parts.rx_header, parts.rx, WINDOW_BITS, now),
            ratchet: Ratchet::new(role, parts.ratchet, now, 1),
        }
    }

    /// Seals `text` as one packet.
    pub(crate) fn seal(&mut self, now: Instant, text: &[u8]) -> Vec<u8> {
        let mut packet = [&[0; HEADER_LEN], text, &[0; TAG_LEN]].concat();
        self.tx.begin_batch(now, 1).unwrap();
        self.tx.seal(0x0102_0304, PacketKind::Data, &mut packet).unwrap();
        packet
    }

    /// Carries out what the ratchet wants; returns its messages.
    fn drain(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(output) = self.ratchet.poll_output() {
            match output {
                RatchetOutput::Send(message) => messages.push(message),
                RatchetOutput::StageRx(chain) => self.rx.stage_epoch(chain, now).unwrap(),
                RatchetOutput::StartTx(chain) => self.start(chain, now),
                other @ (RatchetOutput::Reconnect | RatchetOutput::Abort(_)) => panic!("unexpected {other:?}"),
            }
        }
        messages
    }

    fn start(&mut self, chain: EpochChain, now: Instant) {
        self.tx.start_epoch(chain, now).unwrap();
    }
}

/// Both sides of session 1.
pub(crate) fn pair(aead: AeadId, now: Instant) -> [Peer; 2] {
    [Peer::new(Role::Initiator, 1, aead, now), Peer::new(Role::Responder, 1, aead, now)]
}

/// Runs one whole ratchet step.
pub(crate) fn step(peers: &mut [Peer; 2], now: Instant) {
    let leader = peers[0].ratchet.epoch().unwrap() as usize % 2;
    peers[leader].ratchet.request_step(now);
    let mut from = leader;
    loop {
        let messages = peers[from].drain(now);
        if messages.is_empty() {
            return;
        }
        from = 1 - from;
        for message in messages {
            peers[from].ratchet.handle_message(now, &message).unwrap();
        }
    }
}

/// SplitMix64: the same numbers in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
