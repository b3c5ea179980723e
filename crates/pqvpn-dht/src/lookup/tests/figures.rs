// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of security.md 7.3, in small.

use std::{collections::BTreeSet, time::Duration};

use super::network::{Network, Run, near, record};
use crate::lookup::Goal;

#[derive(Debug, Default, Clone, Copy)]
struct Cell {
    success: f64,
    queries: f64,
    rounds: f64,
    p95: u32,
    elapsed_ms: f64,
    slowest: Duration,
}

fn cell(net: &Network, d: usize, lookups: u64, goal: Goal, change: impl Fn(&mut Run<'_>)) -> Cell {
    let mut cell = Cell::default();
    let mut rounds = Vec::new();
    let mut slowest = Duration::ZERO;
    for seed in 0..lookups {
        let record = record(seed, 1);
        let key = *record.key();
        let from = net.honest(seed ^ 0xabcd);
        let near = net.k_nearest(&key, 60);
        let radius = net.radius();
        let mut run = Run::new(key, goal, seed);
        run.record = Some(&record);
        run.holders = net.holders(&key);
        run.config.paths = d;
        change(&mut run);
        let outcome = net.run(from, &run);
        let good = match goal {
            Goal::Nodes => near.iter().take(20).all(|at| {
                let node = &net.nodes[*at];
                net.is_bad(node.peer())
                    || run.silent.contains(node.peer())
                    || *at == from
                    || outcome.closest.iter().any(|(c, _)| c.peer() == node.peer())
            }),
            Goal::Region => near.iter().filter(|at| net.nodes[**at].node_id().distance(&key) < radius).all(|at| {
                let node = &net.nodes[*at];
                net.is_bad(node.peer())
                    || run.silent.contains(node.peer())
                    || *at == from
                    || outcome.region.iter().any(|(c, _)| c.peer() == node.peer())
            }),
            Goal::Value { .. } => outcome.record.is_some(),
        };
        cell.success += f64::from(u8::from(good)) * 100.0 / lookups as f64;
        cell.queries += f64::from(outcome.stats.asked) / lookups as f64;
        cell.rounds += f64::from(outcome.stats.rounds) / lookups as f64;
        rounds.push(outcome.stats.rounds);
        slowest = slowest.max(outcome.stats.elapsed);
        cell.elapsed_ms += outcome.stats.elapsed.as_secs_f64() * 1000.0 / lookups as f64;
    }
    rounds.sort_unstable();
    cell.slowest = slowest;
    cell.p95 = rounds[rounds.len() * 95 / 100];
    cell
}

#[test]
#[ignore = "prints the whole table"]
fn print_table() {
    let n: usize = std::env::var("N").ok().and_then(|v| v.parse().ok()).unwrap_or(10_000);
    let lookups: u64 = std::env::var("L").ok().and_then(|v| v.parse().ok()).unwrap_or(1000);
    let ds: Vec<usize> =
        std::env::var("D").map_or(vec![1, 2, 4, 8], |v| v.split(',').map(|x| x.parse().unwrap()).collect());
    let start = std::time::Instant::now();
    let mut net = Network::new(n, 1);
    println!("built in {:?}", start.elapsed());
    for (name, goal) in [
        ("value", Goal::Value { want_seq: 0 }),
        ("nodes", Goal::Nodes),
        ("none", Goal::Value { want_seq: 5 }),
        ("region", Goal::Region),
    ] {
        for share in [0.0, 0.1, 0.2, 0.3, 0.4, 0.5] {
            net.corrupt(share, 7);
            for d in &ds {
                let start = std::time::Instant::now();
                let c = cell(&net, *d, lookups, goal, |_| ());
                println!(
                    "{name} f={share} d={d}: success {:.1} % queries {:.1} rounds {:.2} p95 {} mean {:.0} ms slowest {:?} | {:?}",
                    c.success,
                    c.queries,
                    c.rounds,
                    c.p95,
                    c.elapsed_ms,
                    c.slowest,
                    start.elapsed() / lookups as u32
                );
            }
        }
    }
}

#[test]
#[ignore = "prints"]
fn print_silent() {
    let mut net = Network::new(2000, 1);
    for share in [0.0, 0.3, 0.5] {
        net.corrupt(0.0, 7);
        let silent: BTreeSet<_> = net
            .nodes
            .iter()
            .enumerate()
            .filter(|(at, _)| (*at as f64 * 0.618_034).fract() < share)
            .map(|(_, n)| *n.peer())
            .collect();
        for (name, goal) in [
            ("value", Goal::Value { want_seq: 0 }),
            ("nodes", Goal::Nodes),
            ("none", Goal::Value { want_seq: 5 }),
            ("region", Goal::Region),
        ] {
            let c = cell(&net, 8, 300, goal, |run| run.silent = silent.clone());
            println!("silent {share} {name} {c:?}");
        }
    }
    for share in [0.2, 0.4] {
        net.corrupt(share, 9);
        for (name, goal) in [
            ("value", Goal::Value { want_seq: 0 }),
            ("nodes", Goal::Nodes),
            ("none", Goal::Value { want_seq: 5 }),
            ("region", Goal::Region),
        ] {
            let radius = net.radius();
            let c = cell(&net, 8, 100, goal, |run| run.lies = near(&run.target, &radius, 200, run.seed));
            println!("fabricating {share} {name} {c:?}");
        }
    }
}

#[test]
#[ignore = "prints"]
fn print_sybils() {
    for e in [20, 45, 100, 200] {
        for (name, goal) in [("value", Goal::Value { want_seq: 0 }), ("region", Goal::Region)] {
            let mut found = 0;
            let mut queries = 0;
            let mut honest = 0;
            let mut slow = 0;
            for seed in 0..50 {
                let record = record(seed, 1);
                let net = Network::with_sybils(1000, seed, record.key(), e);
                let mut run = Run::new(*record.key(), goal, seed);
                run.record = Some(&record);
                run.holders = net.holders(&run.target);
                let from = net.honest(seed);
                let outcome = net.run(from, &run);
                let reached = outcome.region.iter().filter(|(c, _)| run.holders.contains(c.peer())).count();
                found += u32::from(if goal == Goal::Region { reached > 0 } else { outcome.record.is_some() });
                honest += reached * 100 / run.holders.len();
                queries += outcome.stats.asked;
                slow = slow.max(outcome.stats.rounds);
            }
            println!(
                "e={e} {name}: {found}/50, honest share of region {} %, queries {} rounds <= {slow}",
                honest / 50,
                queries / 50
            );
        }
    }
}

#[test]
#[ignore = "prints"]
fn debug_sybils() {
    for seed in 0..20 {
        let record = record(seed, 1);
        let net = Network::with_sybils(1000, seed, record.key(), 100);
        let mut run = Run::new(*record.key(), Goal::Region, seed);
        run.record = Some(&record);
        run.holders = net.holders(&run.target);
        let from = net.honest(seed);
        let outcome = net.run(from, &run);
        let reached = outcome.region.iter().filter(|(c, _)| run.holders.contains(c.peer())).count();
        let seeds = net.seeds(from, &run.target, 24);
        let share = net.nodes[from].node_id().distance(&run.target).leading_zeros();
        let bad = seeds.iter().filter(|c| net.is_bad(c.peer())).count();
        println!(
            "{seed}: reached {reached}/{} shared bits {share} bad seeds {bad}/24 {:?}",
            run.holders.len(),
            outcome.stats
        );
    }
}
