// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place of the data plane that reads the clock: once per batch, never per packet.

use std::time::Instant;

/// The monotonic time now.
pub(crate) fn now() -> Instant {
    Instant::now()
}
