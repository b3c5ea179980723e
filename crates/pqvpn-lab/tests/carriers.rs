// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members in networks that let no UDP out, with real daemons: they meet by the carriers, in time, and leave them again.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs the ladder of carriers once; a loud skip where there is no daemon or no privilege.
fn run() -> Option<Value> {
    let lab = Path::new(env!("CARGO_BIN_EXE_pqvpn-lab"));
    if !lab.with_file_name("pqvpn").is_file() {
        _ = writeln!(std::io::stderr(), "SKIP: there is no pqvpn beside {}; cargo build -p pqvpn", lab.display());
        return None;
    }
    let mut command = Command::new(lab);
    // Without cargo, the program takes the daemon that is there and builds none.
    command.args(["ladder", "--only", "carriers", "--repeat", "2", "--json"]).env_remove("CARGO");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && (errors.contains("user namespace") || errors.contains("not installed")) {
        _ = writeln!(std::io::stderr(), "SKIP: {errors}");
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    Some(report.unwrap_or_else(|| panic!("no report: {text}{errors}")))
}

#[test]
fn members_meet_where_no_udp_gets_out_and_go_back_to_it() {
    let Some(report) = run() else { return };
    for rung in ["tcp_443", "udp_443", "proxy"] {
        let figure = |what: &str| report["figures"][format!("{rung}_{what}")].as_f64().unwrap();
        assert_eq!(figure("connected"), 2.0, "{report}");
        assert!(figure("connected_max_s") < 5.0 && figure("back_s") < 60.0, "{report}");
    }
}
