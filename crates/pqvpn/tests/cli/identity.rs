// SPDX-License-Identifier: MIT OR Apache-2.0
//! `id`, with and without a key.

use std::{fs, os::unix::fs::symlink};

use crate::sandbox::{Sandbox, chmod, mode};

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn id_has_the_shape_of_schema_1() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", "[node]\nname = \"laptop\"\n");
    let id = sandbox.run(&["id", "--json"]).succeeded().json();
    let keys: Vec<&String> = id.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["addresses", "fingerprint", "name", "peer_id", "schema"]);
    assert_eq!(id["schema"], 1);
    assert_eq!(id["name"], "laptop");
    assert!(is_hex(id["peer_id"].as_str().unwrap(), 64));
    assert!(is_hex(id["fingerprint"].as_str().unwrap(), 64));
    assert!(id["addresses"][0].as_str().unwrap().starts_with("fd"));
    assert!(id["addresses"][1].as_str().unwrap().starts_with("10.100."));
}

#[test]
fn id_makes_the_identity_once_and_privately() {
    let sandbox = Sandbox::new();
    let first = sandbox.run(&["--json", "id"]).succeeded();
    assert!(first.stderr.contains("new identity"));
    let second = sandbox.run(&["--json", "id"]).succeeded();
    assert_eq!(second.stdout, first.stdout);
    assert!(second.stderr.is_empty());
    assert_eq!(mode(&sandbox.path("state")), 0o700);
    assert_eq!(mode(&sandbox.keystore()), 0o600);
}

#[test]
fn quiet_id_says_only_the_id() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["--quiet", "id"]).succeeded();
    assert!(run.stderr.is_empty() && run.stdout.contains("peer id"));
}

#[test]
fn environment_and_option_name_the_same_state() {
    let sandbox = Sandbox::new();
    let id = sandbox.run(&["id", "--json"]).succeeded().stdout;
    let state = sandbox.path("state");
    let mut by_option = sandbox.command(&["id", "--json", "--state", state.to_str().unwrap()]);
    assert_eq!(crate::sandbox::Run::of(by_option.env_remove("PQVPN_STATE")).succeeded().stdout, id);
    let other = sandbox.run(&["id", "--json", "--state", sandbox.path("other").to_str().unwrap()]);
    assert_ne!(other.succeeded().stdout, id);
}

#[test]
fn a_key_others_can_read_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    for bits in [0o640, 0o604, 0o660, 0o644] {
        chmod(&sandbox.keystore(), bits);
        sandbox.run(&["id"]).failed(4, "others than its owner have access");
        sandbox.run(&["daemon"]).failed(4, "others than its owner have access");
        assert_eq!(mode(&sandbox.keystore()), bits);
    }
}

#[test]
fn a_key_behind_a_link_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    fs::rename(sandbox.keystore(), sandbox.path("elsewhere")).unwrap();
    symlink(sandbox.path("elsewhere"), sandbox.keystore()).unwrap();
    sandbox.run(&["id"]).failed(4, "not a regular file");
}

#[test]
fn a_damaged_key_is_refused_and_never_replaced() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let good = fs::read(sandbox.keystore()).unwrap();
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    for (bytes, why) in [
        (&good[..good.len() / 2], "wrong size"),
        (&flipped, "checksum is wrong"),
        (&[], "wrong size"),
        (b"garbage", "wrong size"),
    ] {
        fs::write(sandbox.keystore(), bytes).unwrap();
        sandbox.run(&["id"]).failed(1, why);
        sandbox.run(&["daemon"]).failed(1, why);
        assert_eq!(fs::read(sandbox.keystore()).unwrap(), bytes);
    }
}

#[test]
fn a_state_directory_others_can_write_to_is_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("state")).unwrap();
    chmod(&sandbox.path("state"), 0o777);
    sandbox.run(&["id"]).failed(4, "others than its owner have access");
    assert!(!sandbox.keystore().exists());
}

#[test]
fn a_key_of_another_user_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    if std::os::unix::fs::chown(sandbox.keystore(), Some(crate::sandbox::NOBODY), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    sandbox.run(&["id"]).failed(4, "belongs to user 65534");
}
