// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host after the daemon is as it was before: after a clean end, after a kill, with a device of somebody else.

use std::process::Command;

use nix::sys::signal::Signal;
use pqvpn_lab::process::run;

use crate::{
    proc::HostState,
    rig::{LIMIT, Node, Outer, Pair, TUN, has, usable},
};

#[test]
fn a_clean_end_leaves_the_host_as_it_was() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let before = HostState::of(&pair.host_a.namespace);
    for ending in ["SIGTERM", "the API"] {
        pair.a.start_up();
        let during = HostState::of(&pair.host_a.namespace);
        let changes = before.difference(&during);
        assert!(changes.contains(TUN) && changes.contains("fib") && changes.contains("route6"), "{changes}");
        if ending == "SIGTERM" {
            pair.a.stop();
        } else {
            pair.a.ask(async |client| client.shutdown().await).unwrap();
            // The API answers first; the process ends on its own after that.
            assert_eq!(pair.a.daemon().wait(LIMIT).unwrap().status.code(), Some(0));
        }
        before.assert_still(&pair.host_a.namespace, &format!("after an end by {ending}"));
        assert_nothing_left(&pair.a);
    }
}

#[test]
fn two_signals_at_once_are_one_wish_and_everything_is_taken_back() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let before = HostState::of(&pair.host_a.namespace);
    pair.a.start_up();
    // As `timeout` does: to the child, and to the whole group.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        pair.a.daemon().signal(signal).unwrap();
    }
    let said = pair.a.stop();
    assert!(!said.contains("stopped at once"), "{said}");
    before.assert_still(&pair.host_a.namespace, "after two signals");
    assert_nothing_left(&pair.a);
}

#[test]
fn down_and_up_take_the_addresses_and_bring_them_back() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let up = HostState::of(&pair.a.namespace);
    assert!(pair.a.cli(&["down"]).status.success());
    let down = HostState::of(&pair.a.namespace);
    assert!(up.difference(&down).contains("- route6"), "{}", up.difference(&down));
    assert!(pair.a.cli(&["up"]).status.success());
    up.assert_still(&pair.a.namespace, "after down and up");
    pair.a.meet(&pair.b);
}

#[test]
fn a_killed_daemon_is_cleaned_up_after_by_the_next() {
    if !usable() {
        return;
    }
    let mut pair = Pair::met(Outer::V4);
    pair.a.stop();
    let before = HostState::of(&pair.host_a.namespace);
    for _ in 0..2 {
        pair.a.start_up();
        pair.a.crash();
    }
    // The kernel takes a device that is not persistent away with its last user, and everything on it. What it leaves is
    // that packets for members go nowhere until the next start: in clear, whoever is near could have them.
    let left = before.difference(&HostState::of(&pair.host_a.namespace));
    let closed = |line: &str| {
        ["+ fib", "+ route6 fd", "+ rule4 174:", "+ rule6 174:"].iter().any(|start| line.starts_with(start))
    };
    assert!(!left.is_empty() && left.lines().all(closed), "after a kill:\n{left}");
    pair.a.start_up();
    pair.a.meet(&pair.b);
    pair.a.stop();
    before.assert_still(&pair.host_a.namespace, "after a kill, a start and a stop");
    assert_nothing_left(&pair.a);
}

#[test]
fn a_persistent_device_is_used_and_given_back_also_after_a_kill() {
    if !usable() || !has("ip") {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let mut add = Command::new("ip");
    add.args(["tuntap", "add", "dev", TUN, "mode", "tun", "vnet_hdr"]);
    let made = run(&pair.host_a.namespace, add, LIMIT).unwrap();
    assert!(made.status.success(), "{}", made.stderr);
    let before = HostState::of(&pair.host_a.namespace);
    pair.b.start_up();
    pair.a.start_up();
    pair.a.meet(&pair.b);
    pair.a.stop();
    before.assert_still(&pair.host_a.namespace, "after a clean end on a persistent device");
    pair.a.start_up();
    pair.a.crash();
    let left = HostState::of(&pair.host_a.namespace);
    assert!(left != before, "a kill leaves its addresses on a persistent device");
    pair.a.start_up();
    pair.a.meet(&pair.b);
    let log = pair.a.stop();
    assert!(log.contains("undone"), "the journal was not used:\n{log}");
    before.assert_still(&pair.host_a.namespace, "after a kill, a start and a stop on a persistent device");
    assert_nothing_left(&pair.a);
}

/// No socket, no journal of changes.
pub(crate) fn assert_nothing_left(node: &Node) {
    for name in ["sock", "state/host-journal", "state/host-journal.new"] {
        assert!(!node.file(name).exists(), "{name} of {} was left", node.name);
    }
}
