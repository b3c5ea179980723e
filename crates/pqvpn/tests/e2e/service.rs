// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon and what starts it: what a service manager is told, and what is cleaned up after a kill.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use pqvpn_lab::netns::Namespace;
use serde_json::Value;

use crate::{
    hygiene::assert_nothing_left,
    proc::HostState,
    rig::{LIMIT, Node, Outer, Pair, TUN, has, usable},
};

/// What the manager hears next.
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 200];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn a_manager_hears_ready_then_signs_of_life_then_stopping() {
    if !usable() {
        return;
    }
    let mut node = Node::new(&Namespace::create("managed").unwrap(), "a");
    let path = node.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    node.environment = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), "300000".to_owned()),
    ];
    node.start();
    assert_eq!(heard(&manager), "READY=1");
    // Whoever waits for it may go on at once.
    let status = node.status();
    assert_eq!((status.interface.as_deref(), status.addresses.is_empty()), (Some(TUN), false));
    let began = Instant::now();
    assert_eq!((heard(&manager), heard(&manager), heard(&manager)), life());
    assert!(began.elapsed() >= Duration::from_millis(150), "a sign of life each third of the time, not all at once");
    node.daemon().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let last = std::iter::repeat_with(|| heard(&manager)).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    node.daemon().wait(LIMIT).unwrap();
}

fn life() -> (String, String, String) {
    let sign = || "WATCHDOG=1".to_owned();
    (sign(), sign(), sign())
}

fn cleaned(node: &Node, arguments: &[&str]) -> Value {
    let run = node.cli(&[&["host", "clean", "--json"], arguments].concat());
    assert_eq!(run.status.code(), Some(0), "{}{}", run.stdout, run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn what_a_killed_daemon_left_is_cleaned_away_and_nothing_of_one_that_runs() {
    if !usable() {
        return;
    }
    let mut pair = Pair::met(Outer::V4);
    pair.a.stop();
    let before = HostState::of(&pair.host_a.namespace);
    pair.a.start_up();
    let running = HostState::of(&pair.host_a.namespace);
    let refused = pair.a.cli(&["host", "clean"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("another daemon, process"), "{}", refused.stderr);
    running.assert_still(&pair.host_a.namespace, "after an attempt to clean");
    pair.a.meet(&pair.b);

    pair.a.crash();
    let left = HostState::of(&pair.host_a.namespace);
    assert!(left != before, "a kill leaves members' addresses closed");
    let kept = cleaned(&pair.a, &["--keep-closed"]);
    assert_eq!((kept["removed"].as_array().map(Vec::len), kept["kept"].as_array().map(Vec::len)), (Some(0), Some(1)));
    left.assert_still(&pair.host_a.namespace, "after a clean-up that keeps it closed");
    let removed = cleaned(&pair.a, &[]);
    assert!(removed["removed"][0].as_str().is_some_and(|what| what.contains("members' addresses")), "{removed}");
    before.assert_still(&pair.host_a.namespace, "after a clean-up");
    assert_nothing_left_but_the_socket(&pair.a);
    let again = cleaned(&pair.a, &[]);
    assert_eq!((&again["removed"], &again["kept"]), (&serde_json::json!([]), &serde_json::json!([])));
    pair.a.start_up();
    pair.a.meet(&pair.b);
    pair.a.stop();
    assert_nothing_left(&pair.a);
}

/// The socket is in the folder of what runs: the next start replaces it, and a service manager removes the folder.
fn assert_nothing_left_but_the_socket(node: &Node) {
    let _there = fs::remove_file(node.file("sock"));
    assert_nothing_left(node);
}

#[test]
fn a_clean_up_leaves_the_daemon_of_another_state_directory_alone() {
    if !usable() || !has("ip") {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let running = HostState::of(&pair.host_a.namespace);
    // Of the same host and with the same name for its interface; it never ran.
    let other = Node::new(&pair.host_a.namespace, "other");
    assert_eq!(cleaned(&other, &[])["removed"], serde_json::json!([]));
    assert!(!other.file("state/lock").exists(), "nothing is made where no daemon was");
    running.assert_still(&pair.host_a.namespace, "after a clean-up for another daemon");
    pair.a.meet(&pair.b);
}

#[test]
fn a_persistent_device_is_cleaned_as_well() {
    if !usable() || !has("ip") {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let mut add = std::process::Command::new("ip");
    add.args(["tuntap", "add", "dev", TUN, "mode", "tun", "vnet_hdr"]);
    assert!(pqvpn_lab::process::run(&pair.host_a.namespace, add, LIMIT).unwrap().status.success());
    let before = HostState::of(&pair.host_a.namespace);
    pair.a.start_up();
    pair.a.crash();
    assert!(HostState::of(&pair.host_a.namespace) != before);
    let removed = cleaned(&pair.a, &[]);
    assert!(removed["removed"].as_array().is_some_and(|lines| lines.len() > 2), "{removed}");
    before.assert_still(&pair.host_a.namespace, "after a clean-up on a persistent device");
}
