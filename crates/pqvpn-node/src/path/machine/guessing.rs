// SPDX-License-Identifier: MIT OR Apache-2.0
//! When ports are guessed for a peer, and what comes of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    super::guess::{self, Due, Guess, Part},
    Action, CHECK_AT, Paths, Tried, is_relayed,
};

impl Paths {
    /// Begins to guess ports; `varies`: what our own router does as far as we know, `seed`: random. `false` if there is
    /// nothing to guess.
    pub(crate) fn guess(&mut self, now: Instant, varies: bool, seed: u64) -> bool {
        let Some((at, other_varies)) = self.aim.filter(|_| self.may_guess(now)) else { return false };
        let Some(part) = Part::of(varies, other_varies) else { return false };
        let Some(begun) = Guess::new(now, part, at, seed) else { return false };
        self.next_guess = Some(now + guess::pause(self.guesses));
        self.guesses += 1;
        self.actions.extend(begun.opens().map(Action::OpenSockets));
        self.guess = Some(begun);
        self.handle_timeout(now);
        true
    }

    /// The address of which ports would be guessed now.
    pub(crate) fn aims_at(&self) -> Option<IpAddr> {
        let (at, _) = self.aim?;
        Some(at.ip().to_canonical())
    }

    /// Whether it is time to guess: a relay costs somebody something, and nothing of the sort was done of late.
    pub(super) fn may_guess(&self, now: Instant) -> bool {
        self.guess.is_none() && self.current.is_some_and(is_relayed) && self.next_guess.is_none_or(|at| now >= at)
    }

    pub(super) fn drive_guess(&mut self, now: Instant) {
        while let Some(due) = self.guess.as_mut().and_then(|guess| guess.poll(now, &mut self.ids)) {
            match due {
                Due::Check(id, to) => self.actions.push_back(Action::Check { id, to }),
                Due::FromAll(to) => {
                    let id = self.ids.next();
                    self.checks.push_back((id, to, now));
                    self.tried.entry(to).or_insert(Tried { since: now, sent: CHECK_AT.len(), rtt: None, heard: false });
                    self.actions.push_back(Action::CheckFromAll { id, to });
                }
                Due::Over => self.guess = None,
            }
        }
    }

    /// A guessed port answers: nothing more is sent to others.
    pub(super) fn on_hit(&mut self, now: Instant, from: SocketAddr, rtt: Duration) -> Option<Duration> {
        self.guess.as_mut()?.hit();
        if !self.tried.contains_key(&from) && !self.make_room() {
            let oldest = self.tried.iter().min_by_key(|(_, tried)| tried.since).map(|(at, _)| *at);
            oldest.and_then(|at| self.tried.remove(&at));
        }
        let hit = Tried { since: now, sent: CHECK_AT.len(), rtt: Some(rtt), heard: true };
        self.tried.insert(from, hit);
        self.consider(now, from, rtt);
        Some(rtt)
    }
}
