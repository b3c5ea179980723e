// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lab works for a user without root, in a user namespace.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The user nobody, who owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn check_passes_without_root() {
    let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
    let program = dir.path().join("pqvpn-lab");
    std::fs::copy(env!("CARGO_BIN_EXE_pqvpn-lab"), &program).unwrap();
    for path in [dir.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(["check", "--json"]).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.gid(NOBODY).uid(NOBODY);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && errors.contains("user namespace") {
        _ = writeln!(std::io::stderr(), "SKIP: {errors}");
        return;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(report["pass"], true);
    assert_eq!(report["figures"]["links_crossed"], 2);
    assert_eq!(report["rows"][0]["state"], "user namespace");
}
