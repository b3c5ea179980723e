// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path: a walk towards the target that knows only what its own nodes told it.

use std::time::Duration;

use pqvpn_wire::dht::Distance;

use super::known::{Id, Known, State};

/// Most queries of one path before the merge: a walk through 2^20 nodes needs five, a liar may lead on for ever.
const MAX_QUERIES: u32 = 12;
/// A path with fewer answers has not led anywhere: its first node may be a liar who names nobody.
const MIN_ANSWERS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Path {
    /// Nearest first.
    pub(super) candidates: Vec<Id>,
    /// Round trips up to its last answer or failure.
    pub(super) clock: u32,
    pub(super) queries: u32,
    /// Nodes that answered.
    pub(super) answers: u32,
    /// Set when it came to its end; a merged path stays ended.
    pub(super) ended: bool,
}

/// What a path does now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Asks this candidate.
    Ask(Id),
    /// Waits for an answer.
    Wait,
    /// Has nobody left to ask and got nowhere: another path shall begin instead.
    Stuck,
    /// Has come as near as it can.
    End,
}

impl Path {
    /// The move of the path number `at`. One query at a time, for eight paths are parallel enough; one more for each that
    /// takes longer than `stall`, up to `alpha`.
    pub(super) fn step(&self, known: &Known, at: usize, now: Duration, stall: Duration, alpha: usize) -> Move {
        if self.ended {
            return Move::End;
        }
        let (mut pending, mut stalled) = (0, 0);
        for since in known.pending_of(at) {
            pending += 1;
            stalled += usize::from(now.saturating_sub(since) >= stall);
        }
        if pending > stalled || pending >= alpha {
            return Move::Wait;
        }
        // Nobody beyond the nearest that answered.
        let mut nearer = self.candidates.iter().take_while(|id| known.get(**id).state != State::Answered);
        match nearer.find(|id| known.askable(**id)).copied() {
            Some(next) if self.queries < MAX_QUERIES => Move::Ask(next),
            _ if pending > 0 => Move::Wait,
            None if self.answers < MIN_ANSWERS && self.queries < MAX_QUERIES => Move::Stuck,
            _ => Move::End,
        }
    }

    /// How near it has come: the distance of the nearest node that answered.
    pub(super) fn best(&self, known: &Known) -> Option<Distance> {
        let answered = self.candidates.iter().map(|id| known.get(*id)).find(|one| one.state == State::Answered);
        answered.map(|one| one.distance)
    }
}
