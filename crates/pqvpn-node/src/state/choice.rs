// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of several sessions with a peer is kept: both ends choose alone and must choose alike.

use std::time::{Duration, Instant};

use pqvpn_crypto::schedule::Role;

/// Two sessions made within this time, one by each end, crossed on the wire.
const CROSSED_WITHIN: Duration = Duration::from_secs(3);
/// Two of one dialer made within this time were made at once: they may have come up in another order at the other end. A link
/// beside a session that has come up and does not answer begins two seconds after it at the earliest, and is to be kept.
const TWICE_WITHIN: Duration = Duration::from_millis(1500);

/// One of several sessions with a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival<S> {
    pub(super) session: S,
    /// What both ends call it.
    pub(super) sid: [u8; 32],
    /// Ours in it.
    pub(super) role: Role,
    /// When it came up here.
    pub(super) at: Instant,
    /// Whether its link sleeps.
    pub(super) asleep: bool,
}

/// Chooses the newest session; of two that crossed the one dialed by the lower PeerID, and of two that one end made at once the
/// one with the higher name. `sessions` stand in the order in which they came up here; of such two the other end may know
/// another order. `own_is_lower`: whether our PeerID is the lower one.
///
/// What sleeps is never kept for what is awake: the other end may have made the new one because it knows the old one no more.
///
/// The ends can differ when one saw the two less and the other more than these times apart. Then each closes what the other
/// keeps, and another session is made.
pub(super) fn kept<S: Copy>(sessions: impl Iterator<Item = Rival<S>>, own_is_lower: bool) -> Option<S> {
    let dialed_by_lower = |role: Role| (role == Role::Initiator) == own_is_lower;
    let best = sessions.reduce(|best, next| {
        let apart = next.at.saturating_duration_since(best.at);
        let first = if best.role == next.role {
            apart < TWICE_WITHIN && best.sid > next.sid
        } else {
            apart < CROSSED_WITHIN && dialed_by_lower(best.role)
        };
        if first && !best.asleep { best } else { next }
    });
    best.map(|best| best.session)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A session: its name at both ends, whether the lower end dialed it, when each end saw it come up (lower, higher), in ms.
    type Made = (char, bool, u32, u32);

    fn rival(name: char, role: Role, at: Instant, asleep: bool) -> Rival<char> {
        Rival { session: name, sid: [u8::try_from(name).unwrap(); 32], role, at, asleep }
    }

    /// What the two ends keep.
    fn both(made: &[Made]) -> (Option<char>, Option<char>) {
        let start = Instant::now();
        let at = |lower_end: bool| {
            let role = |by_lower| if by_lower == lower_end { Role::Initiator } else { Role::Responder };
            let time = |made: &Made| start + MS * if lower_end { made.2 } else { made.3 };
            let mut seen: Vec<_> = made.iter().map(|made| rival(made.0, role(made.1), time(made), false)).collect();
            seen.sort_by_key(|rival| rival.at);
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
    }

    #[test]
    fn of_two_that_one_end_made_at_once_both_ends_keep_the_same_in_whatever_order_they_came_up() {
        for by_lower in [true, false] {
            for (first, second) in [((0, 0), (1, 1)), ((0, 60), (20, 20)), ((40, 0), (0, 300)), ((0, 0), (1400, 1400))]
            {
                let made = [('o', by_lower, first.0, first.1), ('n', by_lower, second.0, second.1)];
                assert_eq!(both(&made), (Some('o'), Some('o')), "{by_lower} {first:?} {second:?}");
            }
            let made = [('o', by_lower, 0, 0), ('n', by_lower, 1900, 1900)];
            assert_eq!(both(&made), (Some('n'), Some('n')), "the first did not answer");
        }
    }

    #[test]
    fn what_sleeps_is_not_kept_for_what_is_fresh() {
        let now = Instant::now();
        for (own_is_lower, sleeps, kept_one) in [(true, true, 'n'), (true, false, 'o'), (false, true, 'n')] {
            let old = rival('o', if own_is_lower { Role::Initiator } else { Role::Responder }, now, sleeps);
            let new = rival('n', if own_is_lower { Role::Responder } else { Role::Initiator }, now + MS, false);
            assert_eq!(kept([old, new].into_iter(), own_is_lower), Some(kept_one), "{own_is_lower} {sleeps}");
            let twice = Rival { role: old.role, ..new };
            let kept_one = if sleeps { 'n' } else { 'o' };
            assert_eq!(kept([old, twice].into_iter(), own_is_lower), Some(kept_one), "{own_is_lower} {sleeps}");
        }
    }

    #[test]
    fn a_third_session_does_not_part_them() {
        let made = [('x', true, 0, 40), ('y', false, 30, 10), ('z', true, 200, 240)];
        assert_eq!(both(&made), (Some('z'), Some('z')));
        assert_eq!(both(&[]), (None, None));
    }
}
