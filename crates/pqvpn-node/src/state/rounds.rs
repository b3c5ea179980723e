// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state task does now and then, and for many at a time.

use std::time::Instant;

use super::{leaving::Leaving, sleeping::Gone};

/// When each was done last, and for whom it is to be done.
pub(crate) struct Rounds {
    /// When ways in use were last held.
    pub(super) held_at: Instant,
    /// When the data plane was last asked what it saw.
    pub(super) looked_at: Instant,
    /// Links that fell asleep or ended since memory was last given back.
    pub(super) gone: Gone,
    /// Sessions that were replaced and on which the data plane still receives.
    pub(super) leaving: Leaving,
    pub(super) untold: Untold,
    /// Packets may wait for sessions.
    pub(super) parks: bool,
}

/// Who has not been told yet whether the node rests: its queue was full.
#[derive(Debug, Default)]
pub(super) struct Untold {
    pub(super) networks: bool,
    pub(super) dht: bool,
}

impl Untold {
    pub(super) const fn is_any(&self) -> bool {
        self.networks || self.dht
    }
}

impl Rounds {
    pub(crate) fn new(now: Instant) -> Self {
        let (gone, leaving) = (Gone::default(), Leaving::default());
        Self { held_at: now, looked_at: now, gone, leaving, untold: Untold::default(), parks: false }
    }
}
