// SPDX-License-Identifier: MIT OR Apache-2.0
//! What time it is: handed in by the caller, never read here.

use std::time::Duration;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Time since an origin of the caller's choice; never runs backwards. Every timer uses it.
    pub mono: Duration,
    /// Wall clock, ms since 1970. Only validity windows and weeks use it.
    pub unix_ms: u64,
}
