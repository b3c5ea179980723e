// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks from the first line to the last: made, joined by a code, left alone, cut, two at once; and bad codes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_lab::topology::{Host, internet};
use pqvpn_wire::network::{Code, Door, InviteSecret, NetworkId};
use serde_json::Value;

use crate::{
    proc::HostState,
    rig::{Node, ms_since, poll, usable},
    traffic::udp,
};

/// Exit codes of cli.md.
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const REFUSED: i32 = 4;

/// A node on a host, whose configuration is `more` and its name.
pub(crate) fn node(host: &Host, name: &str, more: &str) -> Node {
    let mut node = Node::new(&host.namespace, name);
    node.name = name.to_owned();
    node.write_config(&format!("[node]\nname = \"{name}\"\n{more}"));
    node
}

/// A running node that knows nobody: no DHT, no neighbours.
pub(crate) fn alone(host: &Host, name: &str) -> Node {
    let mut node = node(host, name, "[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    node.start_up();
    node
}

/// Runs a verb that has to succeed.
#[track_caller]
pub(crate) fn json(node: &Node, line: &[&str]) -> Value {
    let run = node.cli(&[line, &["--json"]].concat());
    assert!(run.status.success(), "{} {line:?}: {}{}", node.name, run.stdout, run.stderr);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", run.stdout, run.stderr))
}

/// Runs a verb that has to fail with `exit`; gives its stable code and its reason.
#[track_caller]
pub(crate) fn fails(node: &Node, line: &[&str], exit: i32) -> (String, String) {
    let run = node.cli(&[line, &["--json"]].concat());
    assert_eq!(run.status.code(), Some(exit), "{} {line:?}: {}{}", node.name, run.stdout, run.stderr);
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    let text = |key: &str| said["error"][key].as_str().unwrap_or_default().to_owned();
    for line in ["error: ", "  why: ", "  try: "] {
        assert!(run.stderr.lines().any(|said| said.starts_with(line)), "{}", run.stderr);
    }
    (text("code"), text("why") + " " + &text("try"))
}

pub(crate) fn invite(node: &Node, more: &[&str]) -> String {
    json(node, &[&["invite"], more].concat())["code"].as_str().unwrap().to_owned()
}

/// Lets `newcomer` into the network of `admin`.
pub(crate) fn let_in(admin: &Node, newcomer: &Node) {
    let joined = json(newcomer, &["join", &invite(admin, &[])]);
    assert_eq!((&joined["name"], &joined["waiting_for_approval"]), (&newcomer.name.as_str().into(), &false.into()));
}

/// Waits until `from` gets an answer from whoever it knows by that name.
pub(crate) fn meets(from: &Node, name: &str) {
    let mut last = String::new();
    from.wait(&format!("a ping to {name}"), || {
        let run = from.cli(&["ping", name, "-c", "1", "-W", "5"]);
        last = run.stderr;
        run.status.success().then_some(())
    });
}

pub(crate) fn names(node: &Node, network: &str) -> Vec<String> {
    let list = json(node, &["members", "--network", network]);
    let mut names: Vec<String> =
        list["members"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// IPv6 address of a node in a network.
pub(crate) fn address(node: &Node, network: &str) -> IpAddr {
    let list = json(node, &["net", "list"]);
    let found = list["networks"].as_array().unwrap().iter().find(|one| one["name"] == network).cloned();
    found.unwrap()["addresses"][0].as_str().unwrap().parse().unwrap()
}

/// A daemon in the background, started by a verb; it ends with this.
struct Background(Pid);

impl Background {
    fn of(answer: &Value) -> Self {
        Self(Pid::from_raw(answer["started_pid"].as_i64().unwrap().try_into().unwrap()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _gone = kill(self.0, Signal::SIGTERM);
    }
}

#[test]
fn two_machines_with_nothing_configured_meet_by_one_code() {
    if !usable() {
        return;
    }
    let net = internet(2).unwrap();
    let (a, b) = (Node::new(&net.hosts[0].namespace, "a"), Node::new(&net.hosts[1].namespace, "b"));
    let before = [&a, &b].map(|node| HostState::of(&node.namespace));
    // Empty: what this machine has configured does not count either.
    a.write_config("");
    b.write_config("");
    let start = Instant::now();
    let made = json(&a, &["net", "create", "home", "--as", "one"]);
    let first = Background::of(&made);
    let text = a.cli(&["invite"]).stdout;
    let code = text.lines().next().unwrap();
    assert!(text.contains("On the other machine: pqvpn join <code>"), "{text}");
    let joined = json(&b, &["join", code, "--name", "two"]);
    let second = Background::of(&joined);
    assert_eq!((&joined["network"], &joined["members"]), (&"home".into(), &2.into()));
    let ping = json(&b, &["ping", "one", "-c", "1", "-W", "10"]);
    let total = ms_since(start);
    assert_eq!((&ping["received"], &ping["name"]), (&1.into(), &"one".into()));
    eprintln!("FIGURE first_two_machines_ms={total:.0} (bar 10000)");
    poll("the other side", || a.cli(&["ping", "two", "-c", "1"]).status.success().then_some(()));
    // Names with their network, and the status of both.
    json(&a, &["ping", "two.home", "-c", "1"]);
    let status = json(&a, &["status"]);
    assert_eq!((&status["networks"][0]["name"], &status["networks"][0]["members"]), (&"home".into(), &2.into()));
    assert_eq!(status["peers"][0]["name"], "two");
    drop((first, second));
    for (node, before) in [&a, &b].into_iter().zip(before) {
        poll("the end of the daemon", || (!node.file("sock").exists()).then_some(()));
        poll("a host as it was", || (HostState::of(&node.namespace) == before).then_some(()));
    }
}

#[test]
fn a_command_that_failed_says_which_daemon_it_started() {
    if !usable() {
        return;
    }
    let net = internet(1).unwrap();
    let a = Node::new(&net.hosts[0].namespace, "a");
    a.write_config("[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    // Nobody is behind this code.
    let code = Code {
        network: NetworkId::from_bytes([7; 32]),
        network_name: "home".into(),
        secret: InviteSecret::from_bytes([5; 16]),
        not_after_s: u32::MAX,
        doors: vec![Door { peer: PeerId::from_bytes([9; 32]), addresses: vec!["203.0.113.5:9".parse().unwrap()] }],
    };
    let run = a.cli(&["join", &code.to_string(), "--timeout", "1"]);
    assert_eq!(run.status.code(), Some(FAILED), "{}", run.stderr);
    let said = run.stderr.lines().find(|line| line.contains("a daemon was started"));
    let pid = said.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{}", run.stderr));
    drop(Background(Pid::from_raw(pid)));
    poll("the end of the daemon", || (!a.file("sock").exists()).then_some(()));
}

#[test]
fn commands_given_at_once_start_one_daemon_and_make_networks_apart() {
    if !usable() {
        return;
    }
    let net = internet(1).unwrap();
    let a = Node::new(&net.hosts[0].namespace, "a");
    a.write_config("");
    let names = ["one", "two", "three", "four", "five"];
    let made: Vec<Value> = thread::scope(|scope| {
        let a = &a;
        let make = |name| scope.spawn(move || json(a, &["net", "create", name]));
        names.map(make).into_iter().map(|made| made.join().unwrap()).collect()
    });
    let started: Vec<_> = made.iter().filter(|made| !made["started_pid"].is_null()).map(Background::of).collect();
    assert_eq!(started.len(), 1, "{made:?}");
    let list = json(&a, &["net", "list"]);
    let pools: BTreeSet<&str> =
        list["networks"].as_array().unwrap().iter().map(|one| one["pool"].as_str().unwrap()).collect();
    assert_eq!(pools.len(), names.len(), "{list}");
    // Between the end of a daemon and that of its socket somebody seems to listen.
    kill(started[0].0, Signal::SIGKILL).unwrap();
    let again = thread::scope(|scope| {
        let up = || scope.spawn(|| json(&a, &["up"]));
        [up(), up(), up()].map(|up| up.join().unwrap())
    });
    let _started: Vec<_> = again.iter().filter(|up| !up["started_pid"].is_null()).map(Background::of).collect();
    drop(started);
    assert_eq!(json(&a, &["status"])["networks"].as_array().unwrap().len(), names.len());
}

#[test]
fn membership_outlives_restarts_and_crashes_of_both() {
    if !usable() {
        return;
    }
    let net = internet(2).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    json(&a, &["net", "create", "home"]);
    let_in(&a, &b);
    meets(&b, "a");
    let addresses = [&a, &b].map(|node| address(node, "home"));
    a.stop();
    b.stop();
    a.start_up();
    b.start_up();
    meets(&b, "a");
    a.crash();
    b.crash();
    b.start_up();
    a.start_up();
    meets(&a, "b");
    assert_eq!([&a, &b].map(|node| address(node, "home")), addresses);
    assert_eq!(names(&b, "home"), ["a", "b"]);
    // Whoever leaves is gone, here and there, and stays gone.
    assert_eq!(fails(&b, &["net", "leave", "home"], USAGE).0, "not-confirmed");
    assert_eq!(names(&b, "home"), ["a", "b"]);
    json(&b, &["net", "leave", "home", "--yes"]);
    a.wait("b to be gone", || (names(&a, "home") == ["a"]).then_some(()));
    b.stop();
    b.start_up();
    assert_eq!(json(&b, &["net", "list"])["networks"], serde_json::json!([]));
    a.stop();
    b.stop();
}

#[test]
fn a_bad_code_is_one_clear_error_and_changes_nothing() {
    if !usable() {
        return;
    }
    let net = internet(4).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let (mut c, mut d) = (alone(&net.hosts[2], "c"), alone(&net.hosts[3], "d"));
    json(&a, &["net", "create", "home"]);
    let good = invite(&a, &[]);
    let refused = |code: &str, exit| fails(&c, &["join", code, "--timeout", "10"], exit);

    let last = if good.ends_with('a') { "b" } else { "a" };
    let (word, said) = refused(&format!("{}{last}", &good[..good.len() - 1]), USAGE);
    assert!(word == "bad-code" && said.contains(&good), "{word}: {said}");
    assert_eq!(refused(&good[..good.len() / 2], USAGE).0, "bad-code");

    // Made by somebody who knows the format, and not the secret; and one that names another network.
    let mut tampered: Code = good.parse().unwrap();
    tampered.secret = InviteSecret::from_bytes([7; 16]);
    assert_eq!(refused(&tampered.to_string(), REFUSED).0, "unknown-invite");
    json(&d, &["net", "create", "elsewhere"]);
    let mut foreign: Code = invite(&d, &[]).parse().unwrap();
    foreign.doors = good.parse::<Code>().unwrap().doors;
    let (word, said) = fails(&c, &["join", &foreign.to_string(), "--timeout", "10"], REFUSED);
    assert!(["bad-proof", "unknown-invite"].contains(&word.as_str()), "{word}: {said}");

    let short = invite(&a, &["--expires", "1s"]);
    a.wait("the end of an invite", || {
        let list = json(&a, &["invite", "list"]);
        list["invites"].as_array().unwrap().iter().any(|one| one["state"] == "expired").then_some(())
    });
    let (word, said) = refused(&short, REFUSED);
    assert!(word == "invite-expired" && said.contains("home") && said.contains("ago"), "{word}: {said}");
    let cancelled = invite(&a, &[]);
    let serial = cancelled.parse::<Code>().unwrap().serial().to_string();
    json(&a, &["invite", "cancel", &serial[..8]]);
    assert_eq!(refused(&cancelled, REFUSED).0, "invite-cancelled");
    let used = invite(&a, &[]);
    json(&b, &["join", &used]);
    assert_eq!(refused(&used, REFUSED).0, "invite-used-up");
    let (word, said) = fails(&c, &["join", &good, "--name", "b", "--timeout", "10"], FAILED);
    assert!(word == "name-taken" && said.contains("b-2"), "{word}: {said}");

    // Nothing of that left a trace, and the good code still works.
    assert_eq!(json(&c, &["net", "list"])["networks"], serde_json::json!([]));
    assert_eq!(json(&c, &["join", &good])["members"], 3);
    meets(&c, "b");
    assert_eq!(fails(&c, &["join", &invite(&a, &[])], FAILED).0, "already-member");
    assert_eq!(fails(&c, &["invite"], REFUSED).0, "not-admin");
    for node in [&mut a, &mut b, &mut c, &mut d] {
        node.stop();
    }
}

#[test]
fn whoever_waits_for_approval_is_in_once_approved_and_out_once_denied() {
    if !usable() {
        return;
    }
    let net = internet(3).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let mut c = alone(&net.hosts[2], "c");
    json(&a, &["net", "create", "home", "--approval"]);
    let code = invite(&a, &["--uses", "2"]);
    for node in [&b, &c] {
        assert_eq!(json(node, &["join", &code])["waiting_for_approval"], true);
    }
    let text = c.cli(&["status"]).stdout;
    assert!(text.contains("# info join-waiting: home waits for an admin") && !text.contains("net create"), "{text}");
    assert!(c.cli(&["up"]).stdout.contains("An admin has to let this node in"));
    a.wait("both to wait", || (json(&a, &["approve"])["requests"].as_array().unwrap().len() == 2).then_some(()));
    assert_eq!(names(&a, "home"), ["a"]);
    assert_eq!(json(&a, &["approve", "b"])["name"], "b");
    meets(&b, "a");
    json(&a, &["deny", "c"]);
    a.wait("nobody to wait", || (json(&a, &["approve"])["requests"] == serde_json::json!([])).then_some(()));
    assert_eq!(names(&a, "home"), ["a", "b"]);
    // Whom the invite names as approved beforehand waits for nobody.
    let code = invite(&a, &["--pre-approved"]);
    c.wait("c to have given up", || {
        let networks = json(&c, &["net", "list"])["networks"].clone();
        (!networks.as_array().unwrap().iter().any(|one| one["state"] == "waiting")).then_some(())
    });
    let denied = |text: &str| text.contains("# warn join-failed: an admin of home has denied the request to join");
    for line in [["status"].as_slice(), &["net", "list"]] {
        let text = c.cli(line).stdout;
        assert!(denied(&text) && !text.contains("join-waiting"), "{text}");
    }
    assert_eq!(json(&c, &["join", &code])["waiting_for_approval"], false);
    let text = c.cli(&["status"]).stdout;
    assert!(!denied(&text), "{text}");
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
}

#[test]
fn a_revocation_cuts_a_running_stream_and_holds() {
    if !usable() {
        return;
    }
    let net = internet(3).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let mut c = alone(&net.hosts[2], "c");
    json(&a, &["net", "create", "home"]);
    let_in(&a, &b);
    let_in(&a, &c);
    let sender = udp(&b.namespace, "[::]:0".parse().unwrap());
    let receivers = [&a, &c].map(|node| udp(&node.namespace, SocketAddr::new(address(node, "home"), 0)));
    let targets = receivers.each_ref().map(|socket| socket.local_addr().unwrap());
    let send = || targets.iter().for_each(|target| drop(sender.send_to(b"still here", target)));
    for socket in &receivers {
        socket.set_nonblocking(true).unwrap();
        poll("the stream", || {
            send();
            arrived(socket).then_some(())
        });
    }
    let revoked = json(&a, &["revoke", "b", "--reason", "test"]);
    let returned = Instant::now();
    assert_eq!((&revoked["name"], &revoked["pushed_to"]), (&"b".into(), &1.into()));
    let mut last = returned;
    poll("silence", || {
        send();
        if receivers.iter().any(arrived) {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_secs(3)).then_some(())
    });
    eprintln!("FIGURE last_packet_after_revoke_ms={:.0} (bar 5000)", (last - returned).as_secs_f64() * 1000.0);
    for node in [&a, &c] {
        assert_eq!(names(node, "home"), ["a", "c"]);
        assert!(!node.status().peers.iter().any(|peer| peer.peer_id == b.id));
    }
    assert!(!b.cli(&["ping", "a", "-c", "1", "-W", "2"]).status.success());
    // And it says the same everywhere: nobody is there for it, and it has nobody to invite.
    let listed = b.wait("b to know it", || {
        let listed = json(&b, &["net", "list"])["networks"][0].clone();
        (listed["state"] == "revoked").then_some(listed)
    });
    assert_eq!(listed["online"], 0);
    let members = json(&b, &["members"]);
    assert!(members["members"].as_array().unwrap().iter().all(|one| one["online"] == false), "{members}");
    let text = b.cli(&["status"]).stdout;
    assert!(text.contains("network-revoked") && !text.contains("Invite somebody"), "{text}");
    // Not after a restart of everybody either; only an admin's new invite lets it in again.
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
        node.start_up();
    }
    meets(&c, "a");
    assert!(!b.cli(&["ping", "a", "-c", "1", "-W", "2"]).status.success());
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
}

fn arrived(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 64];
    let mut any = false;
    while socket.recv(&mut buffer).is_ok() {
        any = true;
    }
    any
}

#[test]
fn two_networks_in_one_daemon_know_nothing_of_each_other() {
    if !usable() {
        return;
    }
    let net = internet(3).unwrap();
    let (mut hub, mut b) = (alone(&net.hosts[0], "hub"), alone(&net.hosts[1], "b"));
    let mut c = alone(&net.hosts[2], "c");
    json(&hub, &["net", "create", "home"]);
    json(&hub, &["net", "create", "work"]);
    assert_eq!(fails(&hub, &["invite"], FAILED).0, "which-network");
    json(&b, &["join", &invite(&hub, &["--network", "home"])]);
    json(&c, &["join", &invite(&hub, &["--network", "work"])]);
    meets(&b, "hub");
    meets(&c, "hub");
    meets(&hub, "b.home");
    meets(&hub, "c.work");
    assert_eq!(names(&b, "home"), ["b", "hub"]);
    assert_eq!(names(&c, "work"), ["c", "hub"]);
    let list = json(&hub, &["net", "list"]);
    let pools: Vec<&Value> = list["networks"].as_array().unwrap().iter().map(|one| &one["pool"]).collect();
    assert_ne!(pools[0], pools[1], "{list}");
    // A name says which network is meant, also with the zone behind it.
    meets(&hub, "b.home.pqvpn");
    let fully = json(&hub, &["lock", "add", "b.home.pqvpn."]);
    assert_eq!((&fully["network"], &fully["in_force"]), (&"home".into(), &true.into()), "{fully}");
    assert_eq!(fails(&hub, &["revoke", "b", "--reason", "x"], FAILED).0, "which-network");
    assert_eq!(fails(&hub, &["revoke", "b.work", "--reason", "x"], FAILED).0, "unknown-member");
    assert!(fails(&hub, &["ping", "hub.home", "-c", "1"], FAILED).1.contains("is this node itself"));
    assert_eq!(fails(&hub, &["deny", "nobody"], FAILED).0, "unknown-member");
    // Neither knows the other, and an address of one network is nobody's in the other.
    assert_eq!(fails(&b, &["ping", "c", "-c", "1"], FAILED).0, "unknown-peer");
    let work = address(&hub, "work").to_string();
    assert_eq!(fails(&b, &["ping", &work, "-c", "1"], FAILED).0, "unknown-peer");
    // One goes down, the other does not notice.
    json(&hub, &["net", "down", "work"]);
    c.wait("work to be down", || (!c.cli(&["ping", "hub", "-c", "1", "-W", "2"]).status.success()).then_some(()));
    meets(&b, "hub");
    json(&hub, &["net", "up", "work"]);
    meets(&c, "hub");
    json(&hub, &["net", "down", "home"]);
    json(&hub, &["net", "up", "home"]);
    for node in [&mut hub, &mut b, &mut c] {
        node.stop();
    }
}
