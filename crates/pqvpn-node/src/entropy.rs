// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one module that draws random numbers for the node; keys draw their own inside the crypto crate.

use aws_lc_rs::rand::fill;

/// A random 64-bit number.
#[must_use]
pub(crate) fn u64() -> u64 {
    u64::from_be_bytes(bytes())
}

/// A random 32-bit number.
#[must_use]
pub(crate) fn u32() -> u32 {
    u32::from_be_bytes(bytes())
}

/// Random bytes.
///
/// # Panics
/// When the operating system has no entropy to give: nothing secure can be done then.
#[must_use]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    #[cfg(feature = "sim")]
    if crate::sim::fill(&mut out) {
        return out;
    }
    fill(&mut out).expect("the system's random generator works");
    out
}
