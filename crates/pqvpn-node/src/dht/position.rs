// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own admission: found once a week, kept over restarts, wanted only where there is somebody to show it to.

use std::time::{Duration, Instant};

use pqvpn_crypto::{peer_id::PeerId, pow::Difficulty};
use pqvpn_dht::admission::{current, week, week_ends};
use pqvpn_wire::dht::{Admission, NetworkId};

use super::{report::AdmissionState, work::is_true};

/// The proof in force and the search for the next.
#[derive(Debug)]
pub(super) struct Position {
    peer: PeerId,
    admission: Option<Admission>,
    /// Since when, and for which week.
    search: Option<(Instant, u32)>,
    wanted: bool,
}

impl Position {
    /// With what an earlier run found, if that is still true; evaluates it, about 10 ms.
    pub(super) fn new(
        peer: PeerId,
        network: &NetworkId,
        difficulty: u32,
        kept: Option<Admission>,
        unix_ms: u64,
    ) -> Self {
        let holds = |kept: &Admission| {
            current(&peer, kept.week, unix_ms) && is_true(network, Difficulty(difficulty), &peer, kept)
        };
        Self { peer, admission: kept.filter(holds), search: None, wanted: false }
    }

    /// Somebody is there whom it could be shown to.
    pub(super) const fn want(&mut self) {
        self.wanted = true;
    }

    /// The week to search a proof for, if that is to begin now.
    pub(super) fn begin(&mut self, now: Instant, unix_ms: u64) -> Option<u32> {
        let week = week(&self.peer, unix_ms);
        let found = self.admission.is_some_and(|admission| admission.week == week);
        let searching = self.search.is_some_and(|(_, searched)| searched == week);
        if !self.wanted || found || searching {
            return None;
        }
        self.search = Some((now, week));
        Some(week)
    }

    /// The search could not begin, or came to nothing.
    pub(super) const fn give_up(&mut self) {
        self.search = None;
    }

    /// Takes a proof that was found.
    pub(super) fn found(&mut self, admission: Admission) {
        self.search = None;
        self.admission = Some(admission);
    }

    /// The proof in force.
    pub(super) fn admission(&self, unix_ms: u64) -> Option<Admission> {
        self.admission.filter(|admission| current(&self.peer, admission.week, unix_ms))
    }

    /// Until the week ends and another proof is due.
    pub(super) fn until_next(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(week_ends(&self.peer, unix_ms).saturating_sub(unix_ms))
    }

    pub(super) fn report(&self, now: Instant, unix_ms: u64, tried: u64) -> AdmissionState {
        if let Some(admission) = self.admission(unix_ms) {
            let until_ms = week_ends(&self.peer, unix_ms);
            return AdmissionState::Solved { week: admission.week, until_ms };
        }
        match self.search {
            Some((since, _)) => AdmissionState::Solving { elapsed: now.saturating_duration_since(since), tried },
            None => AdmissionState::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_crypto::pow::{Challenge, solve};

    use super::*;

    const ME: PeerId = PeerId::from_bytes([7; 32]);
    const NOW_MS: u64 = 1_800_000_000_000;
    const WEEK_MS: u64 = 7 * 24 * 3_600_000;

    fn proof(peer: PeerId, week: u32, difficulty: u32) -> Admission {
        let challenge = Challenge { network: *NetworkId::OPEN.as_bytes(), peer, week };
        let (nonce, out) = solve(&challenge, Difficulty(difficulty), 0, &|| false).unwrap();
        Admission { week, nonce, out }
    }

    #[test]
    fn a_proof_of_this_week_is_not_searched_for_again_after_a_restart() {
        let kept = proof(ME, week(&ME, NOW_MS), 2);
        let mut position = Position::new(ME, &NetworkId::OPEN, 2, Some(kept), NOW_MS);
        position.want();
        assert_eq!(position.begin(Instant::now(), NOW_MS), None);
        assert_eq!(position.admission(NOW_MS), Some(kept));
        let next = NOW_MS + WEEK_MS;
        assert_eq!(position.begin(Instant::now(), next), Some(kept.week + 1));
        assert_eq!(position.begin(Instant::now(), next), None, "one search at a time");
        assert_eq!(position.admission(next), None, "the old one is of no use a week later");
    }

    #[test]
    fn a_kept_proof_that_is_not_true_not_enough_or_not_of_this_week_is_not_used() {
        let this_week = week(&ME, NOW_MS);
        let mut forged = proof(ME, this_week, 2);
        forged.nonce ^= 1 << 60;
        let old = proof(ME, this_week - 1, 2);
        let of_another = proof(PeerId::from_bytes([8; 32]), this_week, 2);
        let cheap = Admission { out: [0xff; 32], ..proof(ME, this_week, 1) };
        for bad in [forged, old, of_another, cheap] {
            let position = Position::new(ME, &NetworkId::OPEN, 2, Some(bad), NOW_MS + 2 * 3_600_000);
            assert_eq!(position.admission(NOW_MS), None, "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_searched_for_nobody() {
        let mut position = Position::new(ME, &NetworkId::OPEN, 2, None, NOW_MS);
        assert_eq!(position.begin(Instant::now(), NOW_MS), None);
        position.want();
        assert!(position.begin(Instant::now(), NOW_MS).is_some());
    }
}
