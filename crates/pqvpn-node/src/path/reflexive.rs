// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where members see this node: the outside of its NAT, as far as one can be told by others.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;

use crate::netcheck::Outside;

/// Observers remembered.
const MAX_SEEN: usize = 16;
/// Addresses told to peers.
const MAX_TOLD: usize = 4;
/// A NAT may have forgotten what nobody has seen for so long (RFC 4787 §4.3 asks for two minutes at least).
const FRESH: Duration = Duration::from_secs(120);

/// What members said of late; shared by who hears it and who uses it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reflexive(Arc<Mutex<VecDeque<Sight>>>);

#[derive(Debug, Clone, Copy)]
struct Sight {
    observer: PeerId,
    /// Where the observer is.
    at: SocketAddr,
    sees: SocketAddr,
    when: Instant,
}

impl Reflexive {
    /// Takes down where `observer`, reached at `at`, sees us. One member has one voice.
    pub(crate) fn note(&self, now: Instant, observer: PeerId, at: SocketAddr, sees: SocketAddr) {
        let mut seen = self.lock();
        seen.retain(|sight| sight.observer != observer || sight.at.is_ipv4() != at.is_ipv4());
        seen.push_front(Sight { observer, at, sees, when: now });
        seen.truncate(MAX_SEEN);
    }

    /// Everywhere we have been seen of late, what most members say first.
    pub(crate) fn addresses(&self, now: Instant) -> Vec<SocketAddr> {
        let seen = self.lock();
        let mut counted: Vec<(usize, SocketAddr)> = Vec::new();
        for sight in seen.iter().filter(|sight| sight.is_fresh(now)) {
            match counted.iter_mut().find(|(_, address)| *address == sight.sees) {
                Some((count, _)) => *count += 1,
                None => counted.push((1, sight.sees)),
            }
        }
        counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        counted.into_iter().take(MAX_TOLD).map(|(_, address)| address).collect()
    }

    /// Where members see us: how many, and how long ago the last of them said so.
    pub(crate) fn sights(&self, now: Instant) -> Vec<Outside> {
        let told = self.addresses(now);
        let seen = self.lock();
        let of = |address: SocketAddr| {
            let ages = seen.iter().filter(|sight| sight.sees == address && sight.is_fresh(now));
            let ages: Vec<Duration> = ages.map(|sight| now.saturating_duration_since(sight.when)).collect();
            Some(Outside { address, seen_by: ages.len(), age: ages.into_iter().min()? })
        };
        told.into_iter().filter_map(of).collect()
    }

    /// Whether members at different addresses see different ports of ours: the mapping depends on the endpoint.
    pub(crate) fn varies(&self, now: Instant) -> bool {
        let seen = self.lock();
        let fresh: Vec<&Sight> = seen.iter().filter(|sight| sight.is_fresh(now) && sight.sees.is_ipv4()).collect();
        fresh
            .iter()
            .any(|a| fresh.iter().any(|b| a.at != b.at && a.sees.ip() == b.sees.ip() && a.sees.port() != b.sees.port()))
    }

    /// The network has changed: what was seen was another place.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sight {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.when) < FRESH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> (PeerId, SocketAddr) {
        (PeerId::from_bytes([n; 32]), SocketAddr::from(([198, 51, 100, n], 41641)))
    }

    fn here(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 7], port))
    }

    #[test]
    fn what_most_members_see_comes_first_and_one_member_has_one_voice() {
        let (seen, now) = (Reflexive::default(), Instant::now());
        for _ in 0..5 {
            let (liar, at) = peer(9);
            seen.note(now, liar, at, here(1));
        }
        for n in 1..=2 {
            let (observer, at) = peer(n);
            seen.note(now, observer, at, here(2));
        }
        assert_eq!(seen.addresses(now), [here(2), here(1)]);
        let later = now + Duration::from_secs(5);
        let sights: Vec<_> = seen.sights(later).iter().map(|one| (one.address, one.seen_by, one.age)).collect();
        assert_eq!(sights, [(here(2), 2, Duration::from_secs(5)), (here(1), 1, Duration::from_secs(5))]);
        assert!(seen.addresses(now + FRESH).is_empty());
    }

    #[test]
    fn a_mapping_that_differs_by_destination_is_noticed() {
        let (seen, now) = (Reflexive::default(), Instant::now());
        let ((one, at_one), (two, at_two)) = (peer(1), peer(2));
        seen.note(now, one, at_one, here(4000));
        seen.note(now, two, at_two, here(4000));
        assert!(!seen.varies(now));
        seen.note(now, two, at_two, here(4001));
        assert!(seen.varies(now));
        assert!(!seen.varies(now + FRESH));
        seen.forget();
        assert!(!seen.varies(now));
    }
}
