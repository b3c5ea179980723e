// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that find each other: on one wire without any configuration, by an entry, by a signed list.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_lab::topology::{Host, lan, pair};
use serde_json::{Value, json};

use crate::rig::{Node, PORT, TUN, poll, usable};

/// A DHT of these tests' own: it takes their addresses, and admission is for nothing.
fn dht() -> String {
    format!("[dht]\nnetwork = \"{}\"\ndifficulty = 1\n", "7e".repeat(32))
}

/// The address a host has in these tests: of a private network, as the DHT refuses those made for documentation.
fn address(host: &Host) -> Ipv4Addr {
    let [.., number] = host.ipv4.octets();
    Ipv4Addr::new(192, 168, 77, number)
}

fn node(host: &Host, bootstrap: &str) -> Node {
    let ip = address(host);
    host.interface.add_address(IpNet::V4(Ipv4Net::new(ip, 24).unwrap())).unwrap();
    let node = Node::new(&host.namespace, host.namespace.name());
    node.write_config(&format!(
        "[node]\nname = \"{}\"\nlisten = [\"{ip}:{PORT}\"]\n[interface]\nname = \"{TUN}\"\n[bootstrap]\n{bootstrap}\n{}",
        node.name,
        dht()
    ));
    node
}

fn entry(node: &Node, host: &Host) -> String {
    format!("pqvpn://{}@{}", node.id, SocketAddr::from((address(host), PORT)))
}

fn json(node: &Node, line: &[&str]) -> Value {
    let run = node.cli(&[line, &["--json"]].concat());
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", run.stdout, run.stderr))
}

fn join(node: &Node, contacts: u64) -> Value {
    node.wait("the DHT", || {
        let status = json(node, &["dht", "status"]);
        let met = status["contacts"].as_u64() >= Some(contacts);
        (status["state"] == "joined" && status["node_id"].is_string() && met).then_some(status)
    })
}

#[test]
fn two_daemons_on_one_wire_find_each_other_without_any_bootstrap() {
    if !usable() {
        return;
    }
    let (host_a, host_b) = pair("a", "b").unwrap();
    let (mut a, mut b) = (node(&host_a, ""), node(&host_b, ""));
    a.start_up();
    assert_eq!(json(&a, &["dht", "status"])["state"], "alone", "a first node is no failure");
    b.start_up();
    join(&a, 1);
    join(&b, 1);
    let doors = poll("a neighbour", || {
        let listed = [&a, &b].map(|node| json(node, &["bootstrap", "list"])["doors"].clone());
        listed.iter().any(|doors| doors[0]["state"] == "working").then_some(listed)
    });
    assert!(doors.iter().flat_map(|doors| doors.as_array().unwrap()).all(|door| door["sources"] == json!(["lan"])));
    a.wait("a value kept by the other", || (json(&a, &["dht", "put", "motd", "hello"])["stored"] == 1).then_some(()));
    let got = json(&b, &["dht", "get", &format!("{}/motd", a.id)]);
    assert_eq!((&got["record"]["value"], &got["record"]["owner"]), (&"hello".into(), &a.id.as_str().into()));
    a.stop();
    b.stop();
}

#[test]
fn an_added_entry_outlives_a_restart_and_a_signed_list_opens_the_same_door() {
    if !usable() {
        return;
    }
    let (_switch, hosts) = lan(&["seed", "b", "c"]).unwrap();
    let quiet = "lan = false";
    let mut seed = node(&hosts[0], quiet);
    let mut b = node(&hosts[1], quiet);
    seed.start_up();
    b.start_up();
    let door = entry(&seed, &hosts[0]);
    let added = json(&b, &["bootstrap", "add", &door]);
    assert_eq!((&added["added"], &added["tried"]), (&1.into(), &true.into()));
    join(&b, 1);
    b.stop();
    b.start_up();
    join(&b, 1);
    let doors = json(&b, &["bootstrap", "list"]);
    assert!(doors["doors"][0]["sources"].as_array().unwrap().contains(&"user".into()), "{doors}");

    // And what is removed stays away, while the door that is left still opens.
    let other = format!("pqvpn://{}@192.168.77.250:{PORT}", "5a".repeat(32));
    assert_eq!(json(&b, &["bootstrap", "add", &other])["added"], 1);
    let removed = json(&b, &["bootstrap", "remove", &other]);
    assert_eq!((&removed["entries"], &removed["dropped"]), (&json!([other]), &1.into()));
    b.stop();
    b.start_up();
    let listed = json(&b, &["bootstrap", "list"]).to_string();
    assert!(!listed.contains(&"5a".repeat(32)) && listed.contains(&seed.id), "{listed}");
    join(&b, 1);

    let file = b.file("nodes.txt");
    let exported = json(&b, &["bootstrap", "export", file.to_str().unwrap()]);
    assert_eq!(exported["entries"], json!([door]));
    let signed = json(&b, &["bootstrap", "sign", file.to_str().unwrap()]);
    let list = signed["path"].as_str().unwrap();
    // The seed is not alone, and c knows it by nothing but the list, from before its first start.
    let mut c = node(&hosts[2], &format!("lan = false\nsigners = [\"{}\"]", b.id));
    let added = json(&c, &["bootstrap", "add", list]);
    assert_eq!((&added["signer"], &added["tried"]), (&b.id.as_str().into(), &false.into()));
    c.start_up();
    join(&c, 1);
    let doors = json(&c, &["bootstrap", "list"]);
    assert!(doors["doors"][0]["sources"].as_array().unwrap().contains(&"list".into()), "{doors}");
    assert_eq!((&doors["doors"][0]["state"], &doors["lists"][0]["entries"]), (&"working".into(), &1.into()));
    for node in [&mut seed, &mut b, &mut c] {
        node.stop();
    }
}

#[test]
fn a_peer_without_an_endpoint_is_found_and_met() {
    if !usable() {
        return;
    }
    let (_switch, hosts) = lan(&["seed", "b", "c"]).unwrap();
    let mut seed = node(&hosts[0], "lan = false");
    let to_seed = format!("lan = false\nnodes = [\"{}\"]", entry(&seed, &hosts[0]));
    let (mut b, mut c) = (node(&hosts[1], &to_seed), node(&hosts[2], &to_seed));
    for (one, other) in [(&b, &c), (&c, &b)] {
        let config = fs::read_to_string(one.file("config.toml")).unwrap();
        one.write_config(&format!("{config}[[peers]]\nid = \"{}\"\nname = \"{}\"\n", other.id, other.name));
    }
    for node in [&mut seed, &mut b, &mut c] {
        node.start_up();
    }
    join(&b, 1);
    join(&c, 1);
    c.wait("its record published", || {
        let status = json(&c, &["dht", "status"]);
        (status["own_records"][0]["stored"].as_u64() >= Some(1)).then_some(())
    });
    b.meet(&c);
    let path = b.peer(&c).path.unwrap();
    assert_eq!(path.remote.port(), PORT);
    for node in [&mut seed, &mut b, &mut c] {
        node.stop();
    }
}

/// A machine that is set up anew: those it finds still know who was at its address.
#[test]
fn a_node_whose_address_is_said_to_be_somebody_else_s_is_no_twin_of_itself() {
    if !usable() {
        return;
    }
    let (host_a, host_b) = pair("a", "b").unwrap();
    let mut a = node(&host_a, "lan = false");
    let mut b = node(&host_b, &format!("lan = false\nnodes = [\"{}\"]", entry(&a, &host_a)));
    a.start_up();
    b.start_up();
    join(&b, 1);
    join(&a, 1);
    b.stop();
    fs::remove_dir_all(b.file("state")).unwrap();
    b.start_up();
    b.wait("a link to itself", || b.daemon().stderr().contains("a link from ourselves").then_some(()));
    // What a link was found to be is told before anything that is asked afterwards.
    let health = json(&b, &["status"])["health"].clone();
    assert!(!health.to_string().contains("identity-twice"), "{health}");
    assert!(!b.daemon().stderr().contains("another node runs"), "{}", b.daemon().stderr());
}
