// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a ratchet steps, repeats itself and gives up (security.md 1.7).

use std::time::Duration;

/// Age of an epoch at which only a full handshake helps (two re-authentication periods).
pub const EPOCH_HARD: Duration = Duration::from_secs(600);
/// How long to wait for the peer before the same message is sent again.
pub const RETRY_TIME: Duration = Duration::from_secs(10);
/// How often a message is repeated before the control stream counts as broken.
pub const RETRIES: u8 = 3;
/// Least time between two steps that the peer asks for: bounds what its requests can cost.
pub const REQUEST_GAP: Duration = Duration::from_secs(1);

/// Mean time between two steps of a session that carries traffic (config key `rekey_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochTime(Duration);

impl EpochTime {
    /// Shortest time allowed, in seconds.
    pub const MIN_SECS: u64 = 1;
    /// Longest time allowed, in seconds: a late follower and all its retries still end before [`EPOCH_HARD`].
    pub const MAX_SECS: u64 = 300;

    /// A time in seconds, `None` outside [`Self::MIN_SECS`]..=[`Self::MAX_SECS`].
    #[must_use]
    pub const fn from_secs(secs: u64) -> Option<Self> {
        if secs < Self::MIN_SECS || secs > Self::MAX_SECS {
            return None;
        }
        Some(Self(Duration::from_secs(secs)))
    }

    /// The time as a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl Default for EpochTime {
    /// 120 s, as WireGuard and Rosenpass rekey.
    fn default() -> Self {
        Self(Duration::from_secs(120))
    }
}

/// `time` ±10 %, the same for the same seed (SplitMix64).
pub(super) fn jittered(time: Duration, seed: u64) -> Duration {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let permille = 900 + (z ^ (z >> 31)) % 201;
    time * permille as u32 / 1000
}
