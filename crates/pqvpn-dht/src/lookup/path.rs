// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path: a walk towards the target that knows only what its own nodes told it.

use std::time::Duration;

use super::known::{Id, Known, State};

/// Most queries of one path before the merge: a walk of 2^20 nodes needs five, a liar may lead on for ever.
const MAX_QUERIES: u32 = 12;

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
    /// Has nobody left to ask and got nowhere: wants another seed.
    Stuck,
    /// Has come as near as it can.
    End,
}

impl Path {
    /// The path's next move. `stall`: an answer that takes longer is not waited for any more.
    pub(super) fn step(&self, known: &Known, path: usize, now: Duration, stall: Duration, alpha: usize) -> Move {
        if self.ended {
            return Move::End;
        }
        let mut under_way = 0;
        let mut stalled = 0;
        for flight in known.in_flight(path) {
            under_way += 1;
            stalled += usize::from(now.saturating_sub(flight.at) >= stall);
        }
        if under_way > stalled || under_way >= alpha {
            return Move::Wait;
        }
        let answered = self.candidates.iter().map(|id| known.get(*id)).find(|one| one.state == State::Answered);
        let next = self.candidates.iter().copied().find(|id| known.askable(*id));
        let nearer = match (next, answered) {
            (Some(next), Some(best)) => Some(next).filter(|next| known.get(*next).distance < best.distance),
            (next, _) => next,
        };
        match nearer {
            Some(_) if self.queries >= MAX_QUERIES && under_way == 0 => Move::End,
            Some(next) if self.queries < MAX_QUERIES => Move::Ask(next),
            _ if under_way > 0 => Move::Wait,
            // Whoever names nobody of use has not led anywhere.
            _ if self.answers < 2 && self.queries < MAX_QUERIES => Move::Stuck,
            _ => Move::End,
        }
    }
}
