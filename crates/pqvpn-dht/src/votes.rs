// SPDX-License-Identifier: MIT OR Apache-2.0
//! Agreeing on facts that nobody signs: our own outside address, the number of nodes, the time (security.md 7.5).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::Wide;

/// Voices needed, no two of them from one /16 or from one path.
pub const QUORUM: usize = 5;
/// A value needs more than this share of the weight.
pub const MAJORITY: f64 = 2.0 / 3.0;
/// Votes looked at; later ones are left out.
pub const MAX_VOTES: usize = 256;

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote<T> {
    /// What the peer claims.
    pub value: T,
    /// The address its answer came from.
    pub source: IpAddr,
    /// The lookup path it was found on: whoever holds the first node of a path chooses all its later ones.
    pub path: u32,
    /// How far it is trusted, 0 to 1: the lower bound of its reputation.
    pub weight: f64,
}

/// The value that more than two thirds of the weight and half of the voices agree on; `None` is "unknown".
///
/// All of one /16 (IPv6: /32) together weigh as much as their heaviest vote, and so do all of one path: thousands of
/// addresses in one subnet, or one hijacked path, are one voice.
#[must_use]
pub fn decide<T: Ord + Clone>(votes: &[Vote<T>]) -> Option<T> {
    let ballots: Vec<Ballot<'_, T>> = votes.iter().filter_map(Ballot::of).take(MAX_VOTES).collect();
    if voices(&ballots) < QUORUM {
        return None;
    }
    let weights = capped(&ballots);
    let total: f64 = weights.iter().sum();
    let mut per_value: BTreeMap<&T, f64> = BTreeMap::new();
    for (ballot, weight) in ballots.iter().zip(&weights) {
        *per_value.entry(ballot.value).or_default() += weight;
    }
    let (winner, weight) = per_value.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let supporters: Vec<_> = ballots.iter().filter(|ballot| ballot.value == winner).copied().collect();
    // One voice of long standing must not outweigh four newcomers.
    let by_heads = voices(&supporters) * 2 > voices(&ballots);
    (weight > total * MAJORITY && by_heads).then(|| winner.clone())
}

#[derive(Debug)]
struct Ballot<'a, T> {
    value: &'a T,
    wide: Wide,
    path: u32,
    weight: f64,
}

impl<T> Clone for Ballot<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ballot<'_, T> {}

impl<'a, T> Ballot<'a, T> {
    /// `None` for a vote without weight.
    fn of(vote: &'a Vote<T>) -> Option<Self> {
        (vote.weight > 0.0 && vote.weight.is_finite()).then(|| Self {
            value: &vote.value,
            wide: Wide::of(vote.source),
            path: vote.path,
            weight: vote.weight.min(1.0),
        })
    }
}

/// Each ballot's weight after the caps per /16 and per path.
fn capped<T>(ballots: &[Ballot<'_, T>]) -> Vec<f64> {
    let of_wide = scales(ballots.iter().map(|ballot| (ballot.wide, ballot.weight)));
    let after: Vec<f64> = ballots.iter().map(|b| b.weight * of_wide.get(&b.wide).copied().unwrap_or(0.0)).collect();
    let of_path = scales(ballots.iter().zip(&after).map(|(ballot, weight)| (ballot.path, *weight)));
    ballots.iter().zip(after).map(|(b, weight)| weight * of_path.get(&b.path).copied().unwrap_or(0.0)).collect()
}

/// For each group, the factor that makes its sum as heavy as its heaviest member.
fn scales<K: Ord>(weights: impl Iterator<Item = (K, f64)>) -> BTreeMap<K, f64> {
    let mut sums: BTreeMap<K, (f64, f64)> = BTreeMap::new();
    for (key, weight) in weights {
        let (sum, most) = sums.entry(key).or_default();
        *sum += weight;
        *most = most.max(weight);
    }
    sums.into_iter().map(|(key, (sum, most))| (key, most / sum)).collect()
}

/// The most ballots that can be picked without two of one /16 or of one path: a maximum matching (Kuhn 1955).
fn voices<T>(ballots: &[Ballot<'_, T>]) -> usize {
    let mut edges: BTreeMap<Wide, Vec<u32>> = BTreeMap::new();
    for ballot in ballots {
        edges.entry(ballot.wide).or_default().push(ballot.path);
    }
    let mut taken: BTreeMap<u32, Wide> = BTreeMap::new();
    edges.keys().filter(|wide| augment(**wide, &edges, &mut taken, &mut Vec::new())).count()
}

/// Gives `wide` a path of its own, moving others to another of theirs if need be. At most 256 deep.
fn augment(
    wide: Wide,
    edges: &BTreeMap<Wide, Vec<u32>>,
    taken: &mut BTreeMap<u32, Wide>,
    tried: &mut Vec<u32>,
) -> bool {
    for path in edges.get(&wide).into_iter().flatten() {
        if tried.contains(path) {
            continue;
        }
        tried.push(*path);
        let free = match taken.get(path).copied() {
            None => true,
            Some(holder) => augment(holder, edges, taken, tried),
        };
        if free {
            taken.insert(*path, wide);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vote from 10 + `net`.`host` on a path.
    fn vote(value: u8, net: u8, host: u8, path: u32, weight: f64) -> Vote<u8> {
        Vote { value, source: IpAddr::from([11 + net, 0, host, 1]), path, weight }
    }

    fn five(value: u8) -> Vec<Vote<u8>> {
        (0..5).map(|i| vote(value, i, 0, u32::from(i), 0.5)).collect()
    }

    #[test]
    fn five_independent_voices_decide_and_four_do_not() {
        assert_eq!(decide(&five(7)), Some(7));
        assert_eq!(decide(&five(7)[..4]), None);
        assert_eq!(decide::<u8>(&[]), None);
    }

    #[test]
    fn more_than_two_thirds_of_the_weight_are_needed() {
        let mut votes: Vec<_> = (0..6).map(|i| vote(u8::from(i >= 4), i, 0, u32::from(i), 0.5)).collect();
        assert_eq!(decide(&votes), None, "4 of 6 is exactly two thirds");
        votes.push(vote(0, 6, 0, 6, 0.5));
        assert_eq!(decide(&votes), Some(0));
    }

    #[test]
    fn a_thousand_hosts_of_one_slash_16_are_one_voice() {
        let mut votes = five(1);
        votes.extend((0..100).map(|host| vote(2, 50, host, u32::from(host) + 10, 1.0)));
        assert_eq!(decide(&votes), Some(1));
        assert_eq!(decide(&votes[5..]), None);
    }

    #[test]
    fn a_hijacked_path_is_one_voice_however_many_networks_it_shows() {
        let mut votes = five(1);
        votes.extend((0..100).map(|net| vote(2, 60 + net, 0, 9, 1.0)));
        assert_eq!(decide(&votes), Some(1));
        assert_eq!(decide(&votes[5..]), None);
    }

    #[test]
    fn voices_are_counted_by_matching_not_by_luck_of_order() {
        // Network 0 is on both paths, network 1 on path 0 only: two voices, if 0 makes room.
        let mut votes: Vec<_> = (2..5).map(|i| vote(1, i, 0, u32::from(i), 0.5)).collect();
        votes.extend([vote(1, 0, 0, 0, 0.5), vote(1, 0, 1, 1, 0.5), vote(1, 1, 0, 0, 0.5)]);
        assert_eq!(decide(&votes), Some(1));
        votes.pop();
        assert_eq!(decide(&votes), None);
    }

    #[test]
    fn an_ipv4_network_in_ipv6_disguise_gets_no_second_vote() {
        let disguise = |net: u8, path| Vote {
            value: 1_u8,
            source: std::net::Ipv4Addr::new(11 + net, 0, 9, 1).to_ipv6_mapped().into(),
            path,
            weight: 0.5,
        };
        let votes: Vec<_> = (0..3).map(|i| vote(1, i, 0, u32::from(i), 0.5)).collect();
        let with: Vec<_> = votes.iter().cloned().chain([disguise(0, 5), disguise(1, 6)]).collect();
        assert_eq!(decide(&with), None);
    }

    #[test]
    fn one_old_friend_does_not_outvote_four_newcomers() {
        let mut votes: Vec<_> = (0..4).map(|i| vote(1, i, 0, u32::from(i), 0.05)).collect();
        votes.push(vote(2, 9, 0, 9, 1.0));
        assert_eq!(decide(&votes), None);
    }

    #[test]
    fn weights_that_are_no_weights_do_not_count() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut votes = five(1);
            votes[0].weight = weight;
            assert_eq!(decide(&votes), None, "{weight}");
        }
        let mut votes = five(1);
        votes[0] = vote(2, 0, 0, 0, 1e9);
        votes.extend((5..9).map(|i| vote(1, i, 0, u32::from(i), 1.0)));
        assert_eq!(decide(&votes), Some(1), "no vote weighs more than 1");
    }
}
