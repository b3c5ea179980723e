// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which links a node has made to itself, by what both ends of a handshake share.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// More than are made at a time: others may name our address as anybody's.
const MOST: usize = 64;

/// What each handshake of such a link exports (RFC 8446 §7.5), newest last. It keeps nothing secret.
#[derive(Debug, Default)]
pub struct OwnLinks(Mutex<VecDeque<[u8; 32]>>);

impl OwnLinks {
    /// The label of what is exported.
    pub const LABEL: &[u8] = b"pqvpn own link";

    /// Notes a handshake that has found us at its other end.
    pub fn note(&self, exported: [u8; 32]) {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= MOST {
            links.pop_front();
        }
        links.push_back(exported);
    }

    /// Whether we began this handshake ourselves: if not, another node has our key.
    pub fn has(&self, exported: &[u8; 32]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(exported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known() {
        let links = OwnLinks::default();
        let number = |n: u8| [n; 32];
        (0..100).for_each(|n| links.note(number(n)));
        assert!(links.has(&number(99)) && links.has(&number(36)));
        assert!(!links.has(&number(35)) && !links.has(&number(200)));
    }
}
