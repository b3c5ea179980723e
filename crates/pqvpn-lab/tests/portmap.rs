// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real router daemon, asked by real nodes: who is behind it is reached directly where nobody could be otherwise.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `portmap` for one way of asking; a loud skip where there is no daemon, no router daemon or no privilege.
fn run(protocol: &str) -> Option<(Option<i32>, Value)> {
    let lab = Path::new(env!("CARGO_BIN_EXE_pqvpn-lab"));
    for (program, what) in
        [(lab.with_file_name("pqvpn"), "cargo build -p pqvpn"), ("/usr/sbin/miniupnpd".into(), "apt")]
    {
        if !program.is_file() {
            _ = writeln!(std::io::stderr(), "SKIP: there is no {}; {what}", program.display());
            return None;
        }
    }
    let mut command = Command::new(lab);
    // Without cargo, the program takes the daemon that is there and builds none.
    command.args(["portmap", "--json", "--protocol", protocol]).env_remove("CARGO");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && (errors.contains("user namespace") || errors.contains("not installed")) {
        _ = writeln!(std::io::stderr(), "SKIP: {errors}");
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    Some((output.status.code(), report.unwrap_or_else(|| panic!("no report: {text}{errors}"))))
}

fn a_mapped_port_is_a_direct_path(protocol: &str) {
    let Some((code, report)) = run(protocol) else { return };
    assert_eq!(code, Some(0), "{report}");
    let row = &report["rows"][0];
    assert_eq!((&row["asked_by"], &row["left_open"]), (&protocol.into(), &0.into()), "{report}");
    for figure in ["mapped_s", "direct_from_inside_s", "direct_from_outside_s"] {
        assert!(row[figure].as_f64().is_some(), "{figure}: {report}");
    }
}

#[test]
fn by_pcp() {
    a_mapped_port_is_a_direct_path("PCP");
}

#[test]
fn by_nat_pmp() {
    a_mapped_port_is_a_direct_path("NAT-PMP");
}

#[test]
fn by_upnp() {
    a_mapped_port_is_a_direct_path("UPnP");
}
