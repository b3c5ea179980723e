// SPDX-License-Identifier: MIT OR Apache-2.0
//! Agreeing on facts that nobody signs: our own outside address, the number of nodes, the time (security.md 7.5).

use std::collections::BTreeMap;
use std::net::IpAddr;

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

/// The first 16 bits of an IPv4 address or 32 of an IPv6 one: roughly, one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wide {
    V4([u8; 2]),
    V6([u8; 4]),
}

impl Wide {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}

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
