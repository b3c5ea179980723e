// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: its JSON, its exit codes, its repeatability.

use std::process::{Command, Output};

use serde_json::Value;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pqvpn-sim")).args(arguments).output().expect("the program starts")
}

/// The last line of the output, without what depends on the machine.
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut report: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    let figures = report["figures"].as_object_mut().expect("figures");
    assert!(figures.remove("wall_s").is_some());
    report
}

const SMALL: [&str; 8] = ["dht", "--nodes", "200", "--seeds", "2", "--malicious", "0.2", "--json"];

#[test]
fn a_point_is_one_json_object_and_the_same_for_a_seed() {
    let with = |seed: &'static str| [&SMALL[..], &["--seed", seed]].concat();
    let first = sim(&with("5"));
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    let report = json(&first);
    assert_eq!(report["name"], "dht");
    assert_eq!(report["pass"], true);
    assert_eq!(report["figures"]["nodes"], 200);
    assert_eq!(report["figures"]["poison_accepted"], 0);
    assert!(report["bars"].as_array().unwrap().len() == 3 && report["rows"].as_array().unwrap().len() == 3);
    assert_eq!(report, json(&sim(&with("5"))));
    assert_ne!(report["figures"]["events"], json(&sim(&with("6")))["figures"]["events"]);
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (vec!["dht", "--attack", "kindness"], "poison-stale"),
        (vec!["dht", "--scenario", "weather"], "partition"),
        (vec!["dht", "--malicious", "1.5"], "share"),
        (vec!["dht", "--seeds", "0"], "--seeds"),
        (vec!["dht", "--nodes", "49"], "--nodes 49"),
        (vec!["dht", "--nodes", "100001"], "--nodes 100001"),
        (vec!["dht", "--nodes", "18446744073709551615"], "100000"),
        (vec!["dht", "--nodes", "-1"], "-1"),
        (vec!["dht", "--sybils", "1001"], "--sybils 1001"),
    ] {
        let output = sim(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(reason), "{arguments:?}: {told}");
    }
}
