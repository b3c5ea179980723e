// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a command of the lab beside the daemon that was built, and reads its report.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// The exit code and the report of `pqvpn-lab ARGUMENTS --json`. `None`, and loudly so, where something is missing: the
/// daemon, one of `tools`, or the right to make namespaces.
pub(crate) fn run(arguments: &[&str], tools: &[&str]) -> Option<(Option<i32>, serde_json::Value)> {
    let lab = Path::new(env!("CARGO_BIN_EXE_pqvpn-lab"));
    let daemon = lab.with_file_name("pqvpn");
    for program in [&daemon].into_iter().map(|daemon| daemon.as_path()).chain(tools.iter().map(Path::new)) {
        if !program.is_file() {
            return skip(&format!("there is no {}; cargo build -p pqvpn, apt for the rest", program.display()));
        }
    }
    let mut command = Command::new(lab);
    // Without cargo, the program takes the daemon that is there and builds none.
    command.args(arguments).arg("--json").env_remove("CARGO");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && (errors.contains("user namespace") || errors.contains("not installed")) {
        return skip(&errors);
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let report = report.unwrap_or_else(|| panic!("no report: {text}{errors}"));
    Some((output.status.code(), report))
}

fn skip<T>(why: &str) -> Option<T> {
    _ = writeln!(std::io::stderr(), "SKIP: {why}");
    None
}
