// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lanes that are a command of `pqvpn-lab`: its figures are shown, each of its bars is a test.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lane::Tally;

/// Seconds of the soak unless `PQVPN_SOAK_SECONDS` says otherwise.
const SOAK: &str = "1800";

/// Strangers against one end of a busy tunnel.
pub(crate) fn flood(tally: &mut Tally) -> Result<()> {
    lab("flood", &[], tally)
}

/// A life in a hurry.
pub(crate) fn soak(tally: &mut Tally) -> Result<()> {
    let seconds = env::var("PQVPN_SOAK_SECONDS").unwrap_or_else(|_| SOAK.to_owned());
    lab("soak", &["--seconds", &seconds], tally)
}

fn lab(name: &str, more: &[&str], tally: &mut Tally) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--release", "--locked", "--package", "pqvpn-lab", "--", "--json", name]).args(more);
    // The report is its standard output; what it says meanwhile is for who waits.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo did not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    match report {
        Some(report) => read(name, &report, tally),
        None => {
            tally.failed += 1;
            tally.failures.push(format!("lane {name}: the lab could not run ({})", output.status));
        }
    }
    Ok(())
}

/// Shows the figures and counts the bars.
fn read(name: &str, report: &Value, tally: &mut Tally) {
    for (figure, value) in report["figures"].as_object().into_iter().flatten() {
        println!("FIGURE {name} {figure}={value}");
    }
    for bar in report["bars"].as_array().into_iter().flatten() {
        if bar["ok"] == true {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            let figure = bar["figure"].as_str().unwrap_or_default();
            let measured = &report["figures"][figure];
            let op = bar["op"].as_str().unwrap_or_default();
            tally.failures.push(format!("lane {name}: {figure} is {measured}, not {op} {}", bar["bar"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_a_test_and_a_missed_one_is_named() {
        let report = serde_json::json!({
            "figures": { "ratio": 0.7, "fds": 0 },
            "bars": [
                { "figure": "ratio", "op": ">=", "bar": 0.8, "ok": false },
                { "figure": "fds", "op": "==", "bar": 0.0, "ok": true },
            ],
        });
        let mut tally = Tally::default();
        read("flood", &report, &mut tally);
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(tally.failures, ["lane flood: ratio is 0.7, not >= 0.8"]);
    }
}
