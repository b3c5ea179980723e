// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is found under which name.

use super::*;
use crate::names::tests::{home, id, member, mesh, work};

fn table(views: &[NetworkView]) -> NameTable {
    NameTable::of(views, &mesh(views), id(1))
}

fn look<'t>(table: &'t NameTable, name: &str) -> Found<'t> {
    table.look_up(&name.split('.').collect::<Vec<_>>())
}

fn addresses(table: &NameTable, name: &str) -> Option<Vec<IpAddr>> {
    if let Found::Host(addresses) = look(table, name) { Some(addresses.to_vec()) } else { None }
}

#[test]
fn every_member_has_a_name_in_its_network_this_node_included() {
    let table = table(&[home(), work()]);
    assert_eq!(addresses(&table, "phone.home.pqvpn"), Some(home().members[0].addresses.clone()));
    assert_eq!(addresses(&table, "laptop.home.pqvpn"), Some(home().own.addresses));
    assert_eq!(addresses(&table, "laptop.work.pqvpn"), Some(work().own.addresses));
    for name in ["phone.work.pqvpn", "nas.home.pqvpn", "home.home.pqvpn", "a.phone.home.pqvpn", "away.pqvpn"] {
        assert_eq!(look(&table, name), Found::Nothing, "{name}");
    }
    assert_eq!((look(&table, "pqvpn"), look(&table, "home.pqvpn")), (Found::Apex, Found::Empty));
    for name in ["phone.home", "home", "example.org", "pqvpn.org", "arpa", "phone.home.pqvpn.org"] {
        assert_eq!(look(&table, name), Found::Foreign, "{name}");
    }
}

#[test]
fn networks_of_one_name_are_told_apart_by_their_ids_and_neither_has_the_short_name() {
    let other = NetworkView { name: "home".to_owned(), ..work() };
    let table = table(&[home(), other]);
    assert_eq!(look(&table, "phone.home.pqvpn"), Found::Nothing);
    assert_eq!(look(&table, "laptop.home.pqvpn"), Found::Nothing);
    assert_eq!(addresses(&table, "phone.home-01010101.pqvpn"), Some(home().members[0].addresses.clone()));
    assert_eq!(addresses(&table, "laptop.home-02020202.pqvpn"), Some(work().own.addresses));
    assert_eq!(table.ambiguous(), ["home"]);
}

#[test]
fn the_long_name_is_there_from_the_beginning_and_is_a_label() {
    let plain = table(&[home()]);
    assert_eq!(addresses(&plain, "phone.home-01010101.pqvpn"), addresses(&plain, "phone.home.pqvpn"));
    assert!(plain.ambiguous().is_empty());
    let long = NetworkView { name: "n".repeat(63), ..home() };
    let table = table(&[long]);
    assert!(table.names().iter().all(|(name, _)| name.split('.').all(|label| label.len() <= 63)));
    assert!(addresses(&table, &format!("phone.{}-01010101.pqvpn", "n".repeat(54))).is_some());
}

#[test]
fn a_network_that_is_off_has_no_names() {
    let table = table(&[NetworkView { enabled: false, ..home() }]);
    assert!(table.is_empty());
    assert_eq!(look(&table, "phone.home.pqvpn"), Found::Nothing);
    assert_eq!(table.zones(), ["pqvpn"]);
}

#[test]
fn only_addresses_that_lead_to_the_member_are_told() {
    let views = [home()];
    let mut mesh = mesh(&views);
    let phone = mesh.peers.get_mut(&id(2)).unwrap();
    phone.addresses.retain(IpAddr::is_ipv6);
    let table = NameTable::of(&views, &mesh, id(1));
    assert_eq!(addresses(&table, "phone.home.pqvpn").map(|found| found.len()), Some(1));
    assert_eq!(look(&table, "2.1.100.10.in-addr.arpa"), Found::Nothing);
    mesh.peers.clear();
    let table = NameTable::of(&views, &mesh, id(1));
    assert_eq!(addresses(&table, "phone.home.pqvpn"), Some(vec![]));
}

#[test]
fn addresses_have_names_too() {
    let table = table(&[home()]);
    assert_eq!(look(&table, "2.1.100.10.in-addr.arpa"), Found::Pointer("phone.home.pqvpn"));
    assert_eq!(look(&table, "9.1.100.10.in-addr.arpa"), Found::Nothing);
    assert_eq!(look(&table, "100.10.in-addr.arpa"), Found::Empty);
    for foreign in ["10.in-addr.arpa", "in-addr.arpa", "2.1.101.10.in-addr.arpa", "1.0.0.127.in-addr.arpa"] {
        assert_eq!(look(&table, foreign), Found::Foreign, "{foreign}");
    }
    let IpAddr::V6(v6) = home().members[0].addresses[0] else { panic!("IPv6 first") };
    let nibbles: Vec<String> =
        v6.octets().iter().rev().flat_map(|octet| [octet & 15, octet >> 4]).map(|n| format!("{n:x}")).collect();
    let whole = format!("{}.ip6.arpa", nibbles.join("."));
    assert_eq!(look(&table, &whole), Found::Pointer("phone.home.pqvpn"));
    assert_eq!(look(&table, &format!("{}.ip6.arpa", nibbles[20..].join("."))), Found::Empty);
    assert_eq!(look(&table, &format!("{}.ip6.arpa", nibbles[21..].join("."))), Found::Foreign);
    assert_eq!(look(&table, "ip6.arpa"), Found::Foreign);
}

#[test]
fn reverse_names_have_one_spelling() {
    let table = table(&[home()]);
    for odd in [
        "02.1.100.10.in-addr.arpa",
        "+2.1.100.10.in-addr.arpa",
        "2.1.100.266.in-addr.arpa",
        "0.2.1.100.10.in-addr.arpa",
        ".1.100.10.in-addr.arpa",
        "ff.ip6.arpa",
        "g.d.f.ip6.arpa",
        "\u{661}.ip6.arpa",
    ] {
        assert_eq!(look(&table, odd), Found::Foreign, "{odd}");
    }
    let long = format!("{}ip6.arpa", "0.".repeat(33));
    assert_eq!(look(&table, &long), Found::Foreign);
}

#[test]
fn the_zones_asked_for_here_are_ours_and_no_more() {
    let zones = table(&[home(), work()]).zones();
    let expected =
        ["100.10.in-addr.arpa", "1.0.1.0.1.0.1.0.1.0.d.f.ip6.arpa", "2.0.2.0.2.0.2.0.2.0.d.f.ip6.arpa", "pqvpn"];
    assert!(expected.iter().all(|zone| zones.contains(&(*zone).to_owned())), "{zones:?}");
    // The /20 of the other network ends within a label.
    assert_eq!(zones.len(), 4);
}

#[test]
fn capitals_of_a_name_do_not_make_another() {
    let mut shouting = home();
    shouting.members = vec![member(2, "Phone", 1)];
    assert!(addresses(&table(&[shouting]), "phone.home.pqvpn").is_some());
}
