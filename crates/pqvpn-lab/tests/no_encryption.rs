// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that encrypt nothing are for one bench: no program that is given to anybody is built with them.
#![expect(clippy::unwrap_used, reason = "a failing step must fail the test")]

use std::process::Command;

/// The features `cargo build -p PACKAGE` builds our crates with.
fn features(package: &str, kinds: &str) -> String {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--package", package, "--edges", kinds]);
    tree.args(["--prefix", "none", "--format", "{p} [{f}]"]);
    tree.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let printed = tree.output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    String::from_utf8(printed.stdout).unwrap()
}

#[test]
fn no_program_is_built_with_keys_that_encrypt_nothing() {
    for package in ["pqvpn", "pqvpn-lab", "pqvpn-dataplane"] {
        let features = features(package, "normal,build");
        assert!(features.contains("pqvpn-crypto v") || package == "pqvpn-lab", "{features}");
        assert!(!features.contains("no-encryption"), "{package}: {features}");
    }
}

#[test]
fn the_data_planes_examples_and_benches_are() {
    // Else the test above would not notice either.
    assert!(features("pqvpn-dataplane", "normal,build,dev").contains("[no-encryption]"));
}
