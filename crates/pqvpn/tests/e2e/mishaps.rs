// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks where something is wrong with the machines or the people: clocks, admins that are gone, stolen or copied
//! keys, codes with old addresses.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_lab::{
    netns::Namespace,
    process::wait_until,
    topology::{Host, internet, pair},
};
use pqvpn_wire::network::Code;
use serde_json::Value;

use crate::{
    networks::{FAILED, REFUSED, alone, fails, invite, json, let_in, meets, names, node},
    rig::{LIMIT, Node, poll, tail, usable},
};

#[test]
fn networks_that_cannot_be_read_are_said_though_none_is_left() {
    if !usable() {
        return;
    }
    let net = internet(1).unwrap();
    let mut a = alone(&net.hosts[0], "a");
    json(&a, &["net", "create", "home"]);
    a.stop();
    let kept = a.file("state").join("networks.redb");
    let whole = fs::read(&kept).unwrap();
    let random: Vec<u8> = (0..40_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let overwritten = [&[0x55; 512][..], &whole[512..]].concat();
    for (number, damaged) in [random.as_slice(), &whole[..whole.len() / 2], &overwritten].into_iter().enumerate() {
        fs::write(&kept, damaged).unwrap();
        a.start_up();
        let text = health(&a, "networks-store").unwrap_or_else(|| panic!("{number}: {}", json(&a, &["status"])));
        assert!(text.contains("networks.redb was damaged") && text.contains("networks.redb.damaged"), "{text}");
        for line in [["up"].as_slice(), &["net", "list"]] {
            let said = a.cli(line).stdout;
            assert!(said.contains(&format!("# error networks-store: {text}")), "{said}");
        }
        let log = a.stop();
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&text)), "{log}");
    }
}

/// The library that lies about the wall clock, where it is installed (package `faketime`).
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIP: libfaketime is not installed");
    }
    found
}

/// Whether a program of this machine takes the library: one that is linked statically does not.
fn set_clock(node: &mut Node, library: &Path, offset: &str) {
    let pairs =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    node.environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
}

fn health(node: &Node, code: &str) -> Option<String> {
    let status = json(node, &["status"]);
    let items = status["health"].as_array().unwrap().clone();
    items.iter().find(|item| item["code"] == code).map(|item| item["text"].as_str().unwrap().to_owned())
}

#[test]
fn a_clock_that_is_an_hour_off_is_one_clear_error_and_the_code_stays_good() {
    let (true, Some(library)) = (usable(), faketime()) else { return };
    let net = internet(3).unwrap();
    let (mut a, mut c) = (alone(&net.hosts[0], "a"), alone(&net.hosts[2], "c"));
    let mut b = node(&net.hosts[1], "b", "[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    json(&a, &["net", "create", "home"]);
    let_in(&a, &c);
    let code = invite(&a, &[]);
    for (offset, direction) in [("+1h", "ahead of"), ("-1h", "behind")] {
        set_clock(&mut b, &library, offset);
        b.start_up();
        let (word, said) = fails(&b, &["join", &code, "--timeout", "10"], FAILED);
        assert_eq!(word, "clock-skew");
        assert!(said.contains(&format!("60 min {direction}")) && said.contains("timedatectl"), "{said}");
        assert_eq!(json(&b, &["net", "list"])["networks"], serde_json::json!([]), "nothing is left behind");
        b.stop();
    }
    b.environment.clear();
    b.start_up();
    assert_eq!(json(&b, &["join", &code])["members"], 3);
    meets(&b, "a");
    b.stop();

    // A member whose clock goes wrong later stays one, is reached, and is told.
    set_clock(&mut b, &library, "+1h");
    b.start_up();
    meets(&b, "a");
    meets(&a, "b");
    // With one other heard nobody knows whose clock is right.
    b.wait("the clock to be noticed", || health(&b, "clock-off").filter(|said| said.contains("60 min ahead of")));
    for node in [&a, &c] {
        assert_eq!(health(node, "clock-off"), None, "one member's clock is not everybody's");
        assert_eq!(names(node, "home"), ["a", "b", "c"]);
    }
    b.stop();
    b.environment.clear();
    b.start_up();
    meets(&a, "b");
    assert_eq!(health(&b, "clock-off"), None);
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
}

#[test]
fn a_network_that_lost_its_quorum_goes_on_and_says_what_it_cannot_do() {
    if !usable() {
        return;
    }
    let net = internet(4).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let (mut c, mut d) = (alone(&net.hosts[2], "c"), alone(&net.hosts[3], "d"));
    json(&a, &["net", "create", "home", "--quorum", "2"]);
    assert!(health(&a, "quorum-lost").unwrap().contains("one admin, and 2 are meant to sign together"));
    let_in(&a, &b);
    let_in(&a, &c);
    let known = |name: &str| {
        let list = json(&a, &["members"]);
        list["members"].as_array().unwrap().iter().any(|one| one["name"] == name && one["seen_ms"].is_u64())
    };
    a.wait("the others' keys", || (known("b") && known("c")).then_some(()));
    assert_eq!(json(&a, &["lock", "add", "b"])["in_force"], true);
    a.wait("no warning", || health(&a, "quorum-lost").is_none().then_some(()));
    meets(&c, "b");
    // Gone for good.
    b.crash();
    for line in [["lock", "add", "c"], ["lock", "remove", "b"]] {
        let act = json(&a, &line);
        assert_eq!((&act["in_force"], &act["have"], &act["need"]), (&false.into(), &1.into(), &2.into()), "{line:?}");
    }
    let revoked = json(&a, &["revoke", "b"]);
    assert_eq!((&revoked["in_force"], &revoked["have"], &revoked["need"]), (&false.into(), &1.into(), &2.into()));
    let said = a.cli(&["revoke", "b"]).stdout;
    assert!(said.contains("1 of 2 signatures") && said.contains("pqvpn net create"), "{said}");
    assert_eq!(names(&a, "home"), ["a", "b", "c"], "who is an admin stays, until two say otherwise");
    assert_eq!(json(&a, &["lock", "status"])["admins"].as_array().unwrap().len(), 2);
    // Everything that needs one admin goes on.
    let_in(&a, &d);
    meets(&d, "c");
    let cancelled = invite(&a, &[]).parse::<Code>().unwrap().serial().to_string();
    json(&a, &["invite", "cancel", &cancelled]);
    let revoked = json(&a, &["revoke", "d"]);
    assert_eq!(revoked["in_force"], true);
    assert_eq!(names(&a, "home"), ["a", "b", "c"]);
    meets(&c, "a");
    // The way out: a new network of those who are left.
    json(&a, &["net", "create", "home-2"]);
    json(&c, &["join", &invite(&a, &["-n", "home-2"])]);
    meets(&c, "a.home-2");
    for node in [&mut a, &mut c, &mut d] {
        node.stop();
    }
}

/// Copies everything the daemon keeps.
fn copy_state(from: &Node, to: &Node) {
    let (from, to) = (from.file("state"), to.file("state"));
    let _there = fs::remove_dir_all(&to);
    let done = std::process::Command::new("cp").arg("-a").args([&from, &to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn two_daemons_with_one_identity_both_say_so_and_do_not_fight() {
    if !usable() {
        return;
    }
    let net = internet(4).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let mut c = alone(&net.hosts[2], "c");
    json(&a, &["net", "create", "home"]);
    let_in(&a, &b);
    let_in(&a, &c);
    meets(&c, "b");
    b.stop();
    let mut twin = node(&net.hosts[3], "b", "[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    copy_state(&b, &twin);
    b.start_up();
    meets(&b, "a");
    twin.start_up();
    meets(&twin, "a");
    // From records that others pass on, at the latest when links are kept alive; a suspicion by sessions may come before.
    for node in [&b, &twin] {
        let noticed = wait_until("the twin to be noticed", LIMIT * 3, || {
            let status = json(node, &["status"]);
            let items = status["health"].as_array().unwrap().clone();
            let proof = |item: &&Value| item["code"] == "identity-twice" && item["level"] == "error";
            items.iter().find(proof).map(|item| item["text"].as_str().unwrap().to_owned())
        });
        let said = noticed.unwrap_or_else(|error| panic!("{error}: {}", tail(&node.daemon().stderr())));
        assert!(said.contains("another daemon uses") && said.contains("stop one of them"), "{said}");
    }
    // Nobody else is told to worry, nobody is thrown out, and nobody corrects anybody for ever.
    let seen = |node: &Node| {
        let list = json(node, &["members"]);
        list["members"].as_array().unwrap().iter().find(|one| one["name"] == "b").unwrap()["seen_ms"].clone()
    };
    let (mut last, mut since) = (Value::Null, Instant::now());
    poll("quiet", || {
        let now = Value::Array(vec![seen(&a), seen(&c)]);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(6)).then_some(())
    });
    for node in [&a, &c] {
        assert_eq!(health(node, "identity-twice"), None);
        assert_eq!(names(node, "home"), ["a", "b", "c"]);
    }
    // What one says to a peer may still end the other's session with it; on their own they do not take turns.
    let made = |nodes: [&Node; 2]| nodes.map(Node::sessions_made);
    let (mut last, mut since) = ([0, 0], Instant::now());
    poll("sessions at rest", || {
        let now = made([&b, &twin]);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(6)).then_some(())
    });
    let before = a.sessions_made();
    meets(&a, "c");
    meets(&c, "a");
    assert!(a.sessions_made() <= before + 1, "sessions between others stay");
    for node in [&mut a, &mut b, &mut c, &mut twin] {
        node.stop();
    }
}

#[test]
fn a_stolen_founders_key_is_answered_beside_the_coup() {
    if !usable() {
        return;
    }
    let net = internet(5).unwrap();
    let (mut a, mut b) = (alone(&net.hosts[0], "a"), alone(&net.hosts[1], "b"));
    let (mut c, mut helper) = (alone(&net.hosts[2], "c"), alone(&net.hosts[3], "helper"));
    json(&a, &["net", "create", "home", "--quorum", "2"]);
    let_in(&a, &b);
    let_in(&a, &c);
    let key_of = |at: &Node, name: &str| {
        at.wait("a key", || {
            let list = json(at, &["members"]);
            let members = list["members"].as_array().unwrap().clone();
            members.iter().any(|one| one["name"] == name && one["seen_ms"].is_u64()).then_some(())
        });
    };
    key_of(&a, "b");
    key_of(&a, "c");
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
    // A thief has a copy of the founder's disk, of when the founder was the only admin, and makes himself a helper.
    let mut thief = node(&net.hosts[4], "a", "[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    copy_state(&a, &thief);
    thief.start_up();
    let_in(&thief, &helper);
    key_of(&thief, "helper");
    let grant = json(&thief, &["lock", "add", "helper"]);
    assert_eq!(grant["in_force"], true);
    helper.wait("its grant", || (json(&helper, &["lock", "status"])["admin"] == true).then_some(()));
    thief.stop();
    helper.stop();
    // Meanwhile the network has three admins.
    for node in [&mut a, &mut b, &mut c] {
        node.start_up();
    }
    meets(&a, "b");
    assert_eq!(json(&a, &["lock", "add", "b"])["in_force"], true);
    let proposed = json(&a, &["lock", "add", "c"]);
    let id = proposed["id"].as_str().unwrap();
    b.wait("the proposal", || b.cli(&["lock", "sign", &id[..16]]).status.success().then_some(()));
    c.wait("three admins", || (json(&c, &["lock", "status"])["admins"].as_array().unwrap().len() == 3).then_some(()));
    a.crash();
    // The thief comes with his helper: two of four, and the quorum is two.
    thief.start_up();
    helper.start_up();
    let grant = &grant["id"].as_str().unwrap()[..16];
    b.wait("the fork", || json(&b, &["lock", "log"]).to_string().contains(grant).then_some(()));
    let removal = poll("the thief to know b as an admin", || {
        let run = thief.cli(&["lock", "remove", "b", "--json"]);
        run.status.success().then(|| serde_json::from_str::<Value>(&run.stdout).unwrap())
    });
    let id = &removal["id"].as_str().unwrap()[..16];
    helper.wait("the removal", || helper.cli(&["lock", "sign", id]).status.success().then_some(()));
    b.wait("the coup", || (json(&b, &["lock", "status"])["admin"] == false).then_some(()));
    assert_eq!(fails(&b, &["lock", "remove", "a"], REFUSED).0, "not-admin");

    // Beside what the thief signed when the founder was alone.
    let answer = json(&b, &["lock", "contest", grant]);
    assert_eq!((&answer["in_force"], &answer["have"], &answer["need"]), (&false.into(), &1.into(), &2.into()));
    let id = answer["id"].as_str().unwrap();
    let proposal = c.wait("the answer", || {
        let lock = json(&c, &["lock", "status"]);
        lock["proposals"].as_array().unwrap().iter().find(|one| one["id"] == id).cloned()
    });
    assert_eq!((&proposal["contests"], &proposal["signers"]), (&true.into(), &serde_json::json!(["b"])));
    assert_eq!(json(&c, &["lock", "sign", &id[..16]])["in_force"], true);
    for node in [&b, &c] {
        let admins = node.wait("the end of the coup", || {
            let lock = json(node, &["lock", "status"]);
            let admins: Vec<String> =
                lock["admins"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            (admins.len() == 2).then_some(admins)
        });
        assert!(admins.contains(&"b".to_owned()) && admins.contains(&"c".to_owned()), "{admins:?}");
    }
    for node in [&mut b, &mut c, &mut thief, &mut helper] {
        node.stop();
    }
}

/// A node on a wire of its own kind: a private address, no DHT; `lan`: whether it announces itself.
fn neighbour(host: &Host, name: &str, last: u8, lan: bool) -> Node {
    let ip = Ipv4Addr::new(192, 168, 77, last);
    host.interface.add_address(IpNet::V4(Ipv4Net::new(ip, 24).unwrap())).unwrap();
    node(host, name, &format!("[dht]\nenabled = false\n[bootstrap]\nlan = {lan}\n"))
}

#[test]
fn a_code_with_old_addresses_finds_its_door_on_the_same_wire() {
    if !usable() {
        return;
    }
    let (host_a, host_b) = pair("a", "b").unwrap();
    let (mut a, mut b) = (neighbour(&host_a, "a", 1, true), neighbour(&host_b, "b", 2, true));
    a.start_up();
    b.start_up();
    json(&a, &["net", "create", "home"]);
    // As from a code that was made before the router gave out other addresses.
    let mut old: Code = invite(&a, &[]).parse().unwrap();
    old.doors[0].addresses = vec!["192.168.77.99:41641".parse().unwrap()];
    let old = old.to_string();
    // Looks follow each other at 0, 1, 3, 7 and 15 s.
    let joined = || b.cli(&["join", &old, "--timeout", "18"]).status.success().then_some(());
    let joined = (0..3).find_map(|_| joined());
    assert!(joined.is_some(), "{}\n{}", tail(&a.daemon().stderr()), tail(&b.daemon().stderr()));
    meets(&b, "a");
    json(&b, &["net", "leave", "--yes"]);
    b.stop();
    // Who has switched the local network off asks nobody there.
    b.write_config("[node]\nname = \"b\"\n[dht]\nenabled = false\n[bootstrap]\nlan = false\n");
    b.start_up();
    let again = invite(&a, &[]).parse::<Code>().map(|code| Code { doors: old.parse::<Code>().unwrap().doors, ..code });
    let (word, said) = fails(&b, &["join", &again.unwrap().to_string(), "--timeout", "5"], FAILED);
    assert!(word == "no-answer" && said.contains("within 5 s"), "{word}: {said}");
    a.stop();
    b.stop();
}

#[test]
fn an_invite_without_any_address_to_put_into_it_says_so() {
    if !usable() {
        return;
    }
    let namespace = Namespace::create("nowhere").unwrap();
    let mut a = Node::new(&namespace, "a");
    a.write_config("[node]\nname = \"a\"\nlisten = [\"0.0.0.0:41641\"]\n[dht]\nenabled = false\n");
    a.start_up();
    json(&a, &["net", "create", "home"]);
    let (word, said) = fails(&a, &["invite"], FAILED);
    assert!(word == "no-address" && said.contains("0.0.0.0:41641") && said.contains("node.listen"), "{word}: {said}");
    assert_eq!(json(&a, &["invite", "list"])["invites"], serde_json::json!([]), "no invite that nobody can use");
    a.stop();
}
