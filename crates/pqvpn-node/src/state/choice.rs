// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of several sessions with a peer is kept: both ends choose alone and must choose alike.

use std::time::{Duration, Instant};

use pqvpn_crypto::schedule::Role;

/// Two sessions made within this time, one by each end, crossed on the wire.
const CROSSED_WITHIN: Duration = Duration::from_secs(3);

/// Chooses the newest session, or of two that crossed the one dialed by the lower PeerID. `sessions` stand in the order
/// in which they came up here, with our role in them, that time, and whether their link sleeps; of crossed ones the other end
/// may know another order. `own_is_lower`: whether our PeerID is the lower one.
///
/// What sleeps is never kept for what is awake: the other end may have made the new one because it knows the old one no more.
///
/// Two of one dialer come up in the same order at both ends: it confirms none that it has made at the same time as another
/// (`session/wanted.rs`).
///
/// The ends can differ when one saw the two less and the other more than [`CROSSED_WITHIN`] apart. Then each closes what the
/// other keeps, and another session is made.
pub(super) fn kept<S: Copy>(sessions: impl Iterator<Item = (S, Role, Instant, bool)>, own_is_lower: bool) -> Option<S> {
    let dialed_by_lower = |role: Role| (role == Role::Initiator) == own_is_lower;
    let best = sessions.reduce(|best, next| {
        let crossed = !best.3 && best.1 != next.1 && next.2.saturating_duration_since(best.2) < CROSSED_WITHIN;
        if crossed && !dialed_by_lower(next.1) { best } else { next }
    });
    best.map(|(session, ..)| session)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A session: its name, whether the lower end dialed it, when each end saw it come up (lower, higher), in ms.
    type Made = (char, bool, u32, u32);

    /// What the two ends keep.
    fn both(made: &[Made]) -> (Option<char>, Option<char>) {
        let start = Instant::now();
        let at = |lower_end: bool| {
            let role = |by_lower| if by_lower == lower_end { Role::Initiator } else { Role::Responder };
            let time = |made: &Made| start + MS * if lower_end { made.2 } else { made.3 };
            let mut seen: Vec<_> = made.iter().map(|made| (made.0, role(made.1), time(made), false)).collect();
            seen.sort_by_key(|&(.., at, _)| at);
            kept(seen.into_iter(), lower_end)
        };
        (at(true), at(false))
    }

    #[test]
    fn of_two_that_crossed_both_ends_keep_the_one_of_the_lower_in_whatever_order_they_came_up() {
        for (a, b) in [(0, 0), (0, 40), (40, 0)] {
            for (c, d) in [(1, 1), (20, 60), (60, 20), (2900, 2930)] {
                assert_eq!(both(&[('l', true, a, b), ('h', false, c, d)]), (Some('l'), Some('l')), "{a} {b} {c} {d}");
                assert_eq!(both(&[('h', false, a, b), ('l', true, c, d)]), (Some('l'), Some('l')), "{a} {b} {c} {d}");
            }
        }
    }

    #[test]
    fn otherwise_both_ends_keep_the_newest() {
        for (first, second) in [(true, true), (false, false), (true, false), (false, true)] {
            let made = [('o', first, 0, 30), ('n', second, 3100, 3130)];
            assert_eq!(both(&made), (Some('n'), Some('n')), "{first} {second}");
        }
        assert_eq!(both(&[('o', false, 0, 9), ('n', false, 50, 59)]), (Some('n'), Some('n')), "dialed twice");
    }

    #[test]
    fn what_sleeps_is_not_kept_for_what_is_fresh() {
        let now = Instant::now();
        for (own_is_lower, sleeps, kept_one) in [(true, true, 'n'), (true, false, 'o'), (false, true, 'n')] {
            let old = ('o', if own_is_lower { Role::Initiator } else { Role::Responder }, now, sleeps);
            let new = ('n', if own_is_lower { Role::Responder } else { Role::Initiator }, now + MS, false);
            assert_eq!(kept([old, new].into_iter(), own_is_lower), Some(kept_one), "{own_is_lower} {sleeps}");
        }
    }

    #[test]
    fn a_third_session_does_not_part_them() {
        let made = [('x', true, 0, 40), ('y', false, 30, 10), ('z', true, 200, 240)];
        assert_eq!(both(&made), (Some('z'), Some('z')));
        assert_eq!(both(&[]), (None, None));
    }
}
