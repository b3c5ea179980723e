// SPDX-License-Identifier: MIT OR Apache-2.0
//! Worlds of whole nodes: a share of the campaign, every failure that was ever found, and that a run can be repeated.

use std::{fs, path::Path};

use pqvpn_sim::{
    seed::Seed,
    whole::{Campaign, Outcome, Plan, campaign, run},
};

/// The share: a two-hundredth of the campaign, with seeds of its own.
const WORLDS: usize = 16;
const OPERATIONS: usize = 300;

#[test]
fn nothing_that_must_not_be_happens_in_a_share_of_the_campaign() {
    let tell = |_: usize, plan: &Plan, outcome: &Outcome| {
        for violation in &outcome.violations {
            let again = format!("pqvpn-sim whole --world {} --operations {OPERATIONS}", plan.seed);
            println!("{}: {} ({} nodes; {again})", violation.rule, violation.what, plan.nodes);
        }
    };
    let Campaign { runs, operations, failed, counts, .. } = campaign(Seed(20_261_129), WORLDS, OPERATIONS, 2, &tell);
    assert_eq!((runs, failed.len()), (WORLDS, 0));
    assert_eq!(operations, (WORLDS * OPERATIONS) as u64);
    assert!(counts[6] > 100, "links sleep: {counts:?}");
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut plans: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    plans.sort();
    assert!(!plans.is_empty());
    for path in plans {
        let plan: Plan = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let outcome = run(&plan);
        assert_eq!(outcome.violations, [], "{}", path.display());
        assert_eq!(outcome.done, plan.operations.len());
    }
}

#[test]
fn a_run_can_be_repeated() {
    let plan = Plan::of(Seed(4), 150);
    let (first, again) = (run(&plan), run(&plan));
    assert_eq!((first.hash, first.counts, first.lasted), (again.hash, again.counts, again.lasted));
    assert_ne!(first.hash, run(&Plan::of(Seed(5), 150)).hash);
}
