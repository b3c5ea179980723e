// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams without meaning, and datagrams that fish for an answer.

use crate::wire::Wire;
use crate::{Failure, Flood};

/// Datagrams in a burst: of one source, length and kind, as a flooder that saves system calls sends them.
const BURST: usize = 8;
/// QUIC's long header with the bits of an Initial.
const INITIAL: u8 = 0xc0;
/// First bytes of garbage: QUIC short and long, tunnel data, and anything.
const LOOKS: [Option<u8>; 5] = [Some(0x40), Some(0xe3), Some(0x24), None, Some(0x24)];

/// What it makes up.
enum Kind {
    Garbage { index: Option<u32> },
    Bait,
}

/// Noise of a seed.
pub(crate) struct Noise {
    kind: Kind,
    state: u64,
    turn: u32,
}

impl Noise {
    /// Every look a datagram may have; some with `index` as their receiver.
    pub(crate) fn garbage(index: Option<u32>) -> Self {
        Self { kind: Kind::Garbage { index }, state: 1, turn: 0 }
    }

    /// What some servers answer.
    pub(crate) fn bait() -> Self {
        Self { kind: Kind::Bait, state: 2, turn: 0 }
    }

    /// SplitMix64: as fast as it has to be.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, least: u64, most: u64) -> usize {
        (least + self.random() % (most - least + 1)) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_le_bytes()[..chunk.len()]);
        }
    }

    fn garbage_datagram(&mut self, look: usize, index: Option<u32>, datagram: &mut [u8]) {
        self.fill(datagram);
        if let Some(first) = LOOKS[look] {
            datagram[0] = first;
        }
        if let (Some(index), 4, true) = (index, look, datagram.len() >= 8) {
            datagram[4..8].copy_from_slice(&index.to_be_bytes());
        }
        // A long header of the right version, or it is thrown away for that alone.
        if look == 1 && datagram.len() > 6 {
            datagram[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
        }
    }

    fn bait_datagram(&mut self, look: usize, datagram: &mut [u8]) {
        self.fill(datagram);
        match look {
            // Other versions: QUIC 2, one that is reserved to force a negotiation, an old draft.
            0..=2 => {
                datagram[0] = INITIAL | 0x03;
                let version: u32 = [0x6b33_43cf, 0x0a0a_0a0a, 0xff00_001d][look];
                datagram[1..5].copy_from_slice(&version.to_be_bytes());
                datagram[5] = 8;
            }
            // A packet of a link that is no more.
            3 => datagram[0] = 0x41,
            // An Initial that is too short to be answered.
            _ => {
                datagram[0] = INITIAL;
                datagram[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
            }
        }
    }
}

impl Flood for Noise {
    fn burst(&mut self, wire: &mut Wire) -> Result<u64, Failure> {
        let source = wire.source(self.turn);
        let look = self.turn as usize % LOOKS.len();
        self.turn = self.turn.wrapping_add(1);
        let length = match self.kind {
            Kind::Garbage { .. } => self.between(1, 1400),
            Kind::Bait if look < 3 => self.between(1200, 1400),
            Kind::Bait => self.between(40, 1199),
        };
        let mut bytes = vec![0; length * BURST];
        for datagram in bytes.chunks_mut(length) {
            match self.kind {
                Kind::Garbage { index } => self.garbage_datagram(look, index, datagram),
                Kind::Bait => self.bait_datagram(look, datagram),
            }
        }
        wire.send(source, &bytes, Some(u16::try_from(length)?))?;
        Ok(BURST as u64)
    }
}
