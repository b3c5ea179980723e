// SPDX-License-Identifier: MIT OR Apache-2.0
//! One cell of the NAT matrix with real daemons: the lab finds a direct path where there is one, and says so where not.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `nat-matrix` once for the given cells; a loud skip where there is no daemon or no privilege.
fn run(arguments: &[&str]) -> Option<(Option<i32>, Value)> {
    let lab = Path::new(env!("CARGO_BIN_EXE_pqvpn-lab"));
    if !lab.with_file_name("pqvpn").is_file() {
        _ = writeln!(std::io::stderr(), "SKIP: there is no pqvpn beside {}; cargo build -p pqvpn", lab.display());
        return None;
    }
    let mut command = Command::new(lab);
    // Without cargo, the program takes the daemon that is there and builds none.
    command.args(["nat-matrix", "--json", "--seed", "5"]).args(arguments).env_remove("CARGO");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && (errors.contains("user namespace") || errors.contains("not installed")) {
        _ = writeln!(std::io::stderr(), "SKIP: {errors}");
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let report = report.unwrap_or_else(|| panic!("no report: {text}{errors}"));
    Some((output.status.code(), report))
}

#[test]
fn a_forwarded_port_is_a_direct_path() {
    let Some((code, report)) = run(&["--nat", "home,full-cone", "--pinned"]) else { return };
    assert_eq!(code, Some(0), "{report}");
    let row = &report["rows"][0];
    assert_eq!((&row["from"], &row["to"]), (&"home".into(), &"full-cone".into()), "{report}");
    assert_eq!((&row["n"], &row["direct"], &row["relay"], &row["fail"]), (&1.into(), &1.into(), &0.into(), &0.into()));
    assert!(row["first_p50_s"].as_f64().unwrap() > 0.0 && row["direct_p50_s"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn every_meeting_is_counted_once_whatever_came_of_it() {
    // No direct path can be expected here, however well the daemons punch.
    let Some((code, report)) = run(&["--nat", "symmetric,symmetric", "--window", "2"]) else { return };
    let row = &report["rows"][0];
    let count = |name: &str| row[name].as_u64().unwrap();
    assert_eq!(row["expected"], "relay");
    assert_eq!(count("direct"), 0, "{report}");
    assert_eq!(count("relay") + count("fail"), 1, "{report}");
    assert_eq!(code, Some(i32::from(count("fail") == 1)), "{report}");
    assert_eq!(report["figures"]["fail"], count("fail"));
}
