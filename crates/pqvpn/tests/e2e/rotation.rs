// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node's key is rotated under traffic's eyes: by name it is there again within seconds, and its old key is nobody.

use std::{fs, path::Path, time::Instant};

use crate::{
    networks::{alone, fails, invite, json, meets},
    rig::{Node, ms_since, usable},
};
use pqvpn_lab::topology::internet;

/// Exit codes of cli.md.
const REFUSED: i32 = 4;
/// How long members may take to reach the node under its new key.
const BAR_MS: f64 = 10_000.0;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// PeerID of a member, as `node` has it.
fn id_of(node: &Node, name: &str) -> String {
    let list = json(node, &["members"]);
    let found = list["members"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
    found.unwrap()["peer_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_rotated_node_is_reached_by_its_name_and_its_old_disk_by_nobody() {
    if !usable() {
        return;
    }
    let net = internet(3).unwrap();
    let [a, mut b, c] = ["a", "b", "c"].map(|name| {
        let at = usize::from(name.as_bytes()[0] - b'a');
        alone(&net.hosts[at], name)
    });
    json(&a, &["net", "create", "home"]);
    let code = invite(&a, &["--uses", "2"]);
    json(&b, &["join", &code]);
    json(&c, &["join", &code]);
    for node in [&a, &c] {
        meets(node, "b");
    }
    let before = json(&b, &["id"]);
    let stolen = b.file("stolen");
    b.stop();
    copy(&b.file("state"), &stolen);
    b.start_up();
    for node in [&a, &c] {
        meets(node, "b");
    }

    let (code, why) = fails(&b, &["keys", "rotate"], REFUSED);
    assert_eq!(code, "not-confirmed", "{why}");
    let started = Instant::now();
    let rotated = json(&b, &["keys", "rotate", "--yes"]);
    let restart_ms = ms_since(started);
    let returned = Instant::now();
    let new = rotated["peer_id"].as_str().unwrap();
    assert_eq!(rotated["old_peer_id"], before["peer_id"]);
    assert_ne!(rotated["old_peer_id"], rotated["peer_id"]);
    let told = &rotated["networks"][0];
    assert!(told["others"] == 2 && told["told"].as_u64().unwrap() >= 1, "{told}");
    for node in [&a, &c] {
        meets(node, "b");
    }
    let back_ms = ms_since(returned);
    eprintln!("FIGURE rotate_ms={restart_ms:.0} reached_by_name_ms={back_ms:.0} (bar {BAR_MS:.0})");
    assert!(back_ms < BAR_MS, "{back_ms} ms");
    for node in [&a, &c] {
        assert_eq!(id_of(node, "b"), new);
        let peers = json(node, &["status"])["peers"].as_array().unwrap().len();
        assert_eq!(peers, 2, "the old key is no peer any more");
    }
    let id = json(&b, &["id"]);
    assert_eq!(id["peer_id"], new);
    assert_ne!(id["addresses"], before["addresses"]);
    // The daemon has the new key from disk as well.
    b.stop();
    assert_eq!(json(&b, &["keys", "show"])["peer_id"], new);

    // The old disk, at the place where everybody looks for it.
    let current = b.file("state");
    fs::rename(&current, b.file("current")).unwrap();
    fs::rename(&stolen, &current).unwrap();
    b.start_up();
    assert_eq!(json(&b, &["id"])["peer_id"], before["peer_id"]);
    b.wait("being turned away", || {
        let list = json(&b, &["net", "list"]);
        (list["networks"][0]["state"] == "revoked").then_some(())
    });
    assert!(!b.cli(&["ping", "a", "-c", "1", "-W", "2"]).status.success());
    assert!(!a.cli(&["ping", before["peer_id"].as_str().unwrap(), "-c", "1", "-W", "2"]).status.success());
    assert_eq!(id_of(&a, "b"), new);
    b.stop();
    fs::remove_dir_all(&current).unwrap();
    fs::rename(b.file("current"), &current).unwrap();

    // No daemon: the others hear of it from the next one.
    let rotated = json(&b, &["keys", "rotate", "--yes"]);
    assert_eq!((&rotated["old_peer_id"], &rotated["networks"][0]["told"]), (&new.into(), &0.into()));
    b.start_up();
    assert_eq!(json(&b, &["id"])["peer_id"], rotated["peer_id"]);
    b.wait("being met under the third key", || (id_of(&a, "b") == rotated["peer_id"]).then_some(()));
    meets(&a, "b");
    // A daemon that is not asked still has the state.
    let (socket, elsewhere) = (b.file("sock"), b.file("elsewhere"));
    fs::rename(&socket, &elsewhere).unwrap();
    let (code, why) = fails(&b, &["keys", "rotate", "--yes"], 1);
    assert_eq!(code, "in-use", "{why}");
    fs::rename(&elsewhere, &socket).unwrap();
    assert_eq!(json(&b, &["id"])["peer_id"], rotated["peer_id"]);
}

#[test]
fn a_daemon_that_keeps_no_key_rotates_none() {
    if !usable() {
        return;
    }
    let net = internet(1).unwrap();
    let mut node = Node::new(&net.hosts[0].namespace, "a");
    node.write_config("[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    node.start_ephemeral();
    let (code, why) = fails(&node, &["keys", "rotate", "--yes"], REFUSED);
    assert_eq!(code, "ephemeral-key");
    assert!(why.contains("--ephemeral"), "{why}");
    // Its own keystore of other runs is as it was.
    assert!(!node.file("state").join("keystore.next").exists());
    // Nor has it anything else of this one.
    json(&node, &["net", "create", "gone"]);
    assert!(node.file("state").join("pqvpn-ephemeral/networks.redb").exists());
    node.stop();
    for left in ["pqvpn-ephemeral", "networks.redb"] {
        assert!(!node.file("state").join(left).exists(), "{left}");
    }
    node.start_ephemeral();
    assert_eq!(json(&node, &["net", "list"])["networks"].as_array().map(Vec::len), Some(0));
    node.stop();
}
