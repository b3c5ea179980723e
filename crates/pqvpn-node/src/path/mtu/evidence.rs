// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a verdict rests on: how much is lost by mere chance.

use std::time::Instant;

/// Probes remembered for the estimate of loss.
const MEMORY: f64 = 64.0;

/// A length under test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) len: u16,
    /// The tick of its first probe whose witness counts.
    pub(super) since: u64,
    /// Witnesses that were answered while it was not.
    pub(super) evidence: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) len: u16,
    /// Sent behind those under test, to tell a length that is lost from loss.
    pub(super) is_witness: bool,
    pub(super) at: Instant,
    pub(super) tick: u64,
}

/// Loss of probes, there and back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loss {
    lost: f64,
    total: f64,
}

impl Loss {
    pub(super) fn add(&mut self, lost: bool) {
        if self.total >= MEMORY {
            (self.lost, self.total) = (self.lost / 2.0, self.total / 2.0);
        }
        self.total += 1.0;
        self.lost += if lost { 1.0 } else { 0.0 };
    }

    /// One that was answered after `lost` that were not.
    pub(super) fn add_answered_after(&mut self, lost: u32) {
        (0..lost).for_each(|_| self.add(true));
        self.add(false);
    }

    /// A cautious estimate: of nothing known a half, and a deviation more than was seen.
    pub(super) fn share(self) -> f64 {
        (self.lost + 1.0 + (self.lost + 1.0).sqrt()) / (self.total + 4.0)
    }

    /// The estimate, 0 where nothing was lost.
    pub(super) fn share_if_any(self) -> f64 {
        if self.lost > 0.0 { self.share() } else { 0.0 }
    }
}
