// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids of probes that nobody can guess.

use std::fmt;

use aws_lc_rs::hmac;

/// Ids of probes. The peer sees those of its own and could otherwise answer, in the name of another address, what was
/// sent there.
#[derive(Clone)]
pub(super) struct Ids {
    key: hmac::Key,
    next: u64,
}

impl Ids {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), next: 0 }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        let tag = hmac::sign(&self.key, &self.next.to_be_bytes());
        tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("next", &self.next).finish_non_exhaustive()
    }
}
