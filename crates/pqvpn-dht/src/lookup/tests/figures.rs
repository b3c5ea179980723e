// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of security.md 7.3: small ones asserted, the whole tables printed on demand.
//!
//! ```text
//! cargo test --release -p pqvpn-dht --lib print_ -- --ignored --nocapture
//! ```

use std::{collections::BTreeSet, time::Duration};

use super::{
    network::{Network, Run, record},
    *,
};

const VALUE: Goal = Goal::Value { want_seq: 0 };
/// A value nobody has.

#[derive(Debug, Default, Clone, Copy)]
struct Cell {
    success: f64,
    queries: f64,
    rounds: f64,
    rounds_p95: u32,
    mean_ms: f64,
    slowest: Duration,
}

/// `lookups` lookups for keys at random, from honest nodes at random.
///
/// Success: the record was found; or all honest nodes among the 20 nearest, or in the region, were.
fn cell(net: &Network, d: usize, lookups: u64, goal: Goal, change: impl Fn(&mut Run<'_>)) -> Cell {
    let mut cell = Cell::default();
    let mut rounds = Vec::new();
    for seed in 0..lookups {
        let record = record(seed, 1);
        let key = *record.key();
        let from = net.honest(seed ^ 0xabcd);
        let mut run = Run::new(key, goal, seed);
        run.record = Some(&record);
        run.holders = net.holders(&key);
        run.config.paths = d;
        change(&mut run);
        let outcome = net.run(from, &run);
        let near = net.k_nearest(&key, 80);
        let expected = match goal {
            Goal::Nodes => near.into_iter().take(20).collect(),
            Goal::Region => near.into_iter().filter(|at| run.holders.contains(net.nodes[*at].peer())).collect(),
            Goal::Value { .. } => Vec::new(),
        };
        let found = if goal == Goal::Region { &outcome.region } else { &outcome.closest };
        let found: BTreeSet<_> = found.iter().map(|(contact, _)| *contact.peer()).collect();
        let excused = |peer: &PeerId| net.is_bad(peer) || run.silent.contains(peer) || peer == net.nodes[from].peer();
        let all = expected.iter().map(|at| net.nodes[*at].peer()).all(|peer| excused(peer) || found.contains(peer));
        let good = if matches!(goal, Goal::Value { .. }) { outcome.record.is_some() } else { all };
        let share = 1.0 / f64::from(u32::try_from(lookups).expect("few"));
        cell.success += f64::from(u8::from(good)) * 100.0 * share;
        cell.queries += f64::from(outcome.stats.asked) * share;
        cell.rounds += f64::from(outcome.stats.rounds) * share;
        cell.mean_ms += outcome.stats.elapsed.as_secs_f64() * 1000.0 * share;
        cell.slowest = cell.slowest.max(outcome.stats.elapsed);
        rounds.push(outcome.stats.rounds);
    }
    rounds.sort_unstable();
    cell.rounds_p95 = rounds[rounds.len() * 95 / 100];
    cell
}

#[test]
fn in_an_honest_network_all_is_found_within_four_round_trips() {
    let net = Network::new(1000, 1);
    for goal in [VALUE, Goal::Nodes] {
        let cell = cell(&net, 8, 80, goal, |_| ());
        assert!(cell.success > 99.9, "{goal:?} {cell:?}");
        assert!(cell.rounds_p95 <= 4 && cell.slowest <= Duration::from_millis(500), "{goal:?} {cell:?}");
        assert!(cell.queries < 40.0, "{goal:?} {cell:?}");
    }
    let region = cell(&net, 8, 40, Goal::Region, |_| ());
    assert!(region.success > 99.9 && region.queries < 70.0, "{region:?}");
}

/// S/Kademlia's experiment: colluders answer only with the colluders nearest to the target.
#[test]
fn disjoint_paths_find_values_among_colluders() {
    let mut net = Network::new(2000, 1);
    for (share, least) in [(0.2, 99.0), (0.3, 98.0), (0.4, 97.0)] {
        net.corrupt(share, 7);
        let eight = cell(&net, 8, 100, VALUE, |_| ());
        assert!(eight.success >= least, "{share}: {eight:?}");
        assert!(eight.queries < 60.0, "{share}: {eight:?}");
        let nodes = cell(&net, 8, 50, Goal::Nodes, |_| ());
        assert!(nodes.success >= 96.0 && nodes.queries < 60.0, "{share}: {nodes:?}");
    }
    let one = cell(&net, 1, 100, Goal::Nodes, |run| run.seeds = 1);
    assert!(one.success < 90.0, "a single path must fail where eight do not: {one:?}");
}
