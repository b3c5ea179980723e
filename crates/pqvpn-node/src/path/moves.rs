// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often packets to one peer took another path.

use std::net::SocketAddr;

/// Counts since the peer was first known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    /// Changes of a session's path, whoever made them.
    pub(crate) changes: u64,
    /// Those made after the path before had fallen silent.
    pub(crate) failovers: u64,
}

impl Moves {
    /// Packets go to `to`, `silent` being whether where they went does not answer.
    pub(crate) fn note(&mut self, from: Option<SocketAddr>, to: SocketAddr, silent: bool) {
        if from.is_some_and(|from| from != to) {
            self.changes += 1;
            self.failovers += u64::from(silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_address_is_a_change_and_only_after_silence_a_failover() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut moves = Moves::default();
        moves.note(None, at(1), true);
        moves.note(Some(at(1)), at(1), true);
        assert_eq!(moves, Moves::default(), "a first path, and the same again");
        moves.note(Some(at(1)), at(2), false);
        moves.note(Some(at(2)), at(1), true);
        assert_eq!(moves, Moves { changes: 2, failovers: 1 });
    }
}
