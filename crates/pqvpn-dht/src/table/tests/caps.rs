// SPDX-License-Identifier: MIT OR Apache-2.0
//! No subnet gets more than its share.

use super::*;
use crate::table::TableRefusal;

fn refused(why: TableRefusal) -> Inserted {
    Inserted::Refused(why)
}

fn in_24(third: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([20, 20, third, host], 1))
}

#[test]
fn two_of_a_subnet_fit_in_a_bucket() {
    let mut table = Table::new(OWN, TableConfig::default());
    assert_eq!(table.insert(at(0), contact_in(0, 1, in_24(1, 1))), Inserted::Added);
    assert_eq!(table.insert(at(0), contact_in(0, 2, in_24(1, 2))), Inserted::Added);
    assert_eq!(table.insert(at(0), contact_in(0, 3, in_24(1, 3))), refused(TableRefusal::Subnet));
    assert_eq!(table.insert(at(0), contact_in(0, 4, in_24(2, 3))), Inserted::Added, "the /24 beside it");
    assert_eq!(table.insert(at(0), contact_in(1, 5, in_24(1, 5))), Inserted::Added, "another bucket");
    assert_eq!(table.counters().subnet, 1);
}

#[test]
fn a_subnet_of_ipv6_is_a_48() {
    let address = |low: u16| SocketAddr::from(([0x2a00, 1, 2, low, 0, 0, 0, 1], 1));
    let mut table = Table::new(OWN, TableConfig::default());
    assert_eq!(table.insert(at(0), contact_in(0, 1, address(1))), Inserted::Added);
    assert_eq!(table.insert(at(0), contact_in(0, 2, address(2))), Inserted::Added);
    assert_eq!(table.insert(at(0), contact_in(0, 3, address(3))), refused(TableRefusal::Subnet));
}

#[test]
fn ten_of_a_subnet_fit_in_a_table() {
    let mut table = Table::new(OWN, TableConfig::default());
    for bucket in 0..5 {
        for host in 0..2 {
            let seed = u64::from(bucket * 2 + host);
            let host = u8::try_from(seed + 1).expect("small");
            assert_eq!(table.insert(at(0), contact_in(bucket, seed, in_24(1, host))), Inserted::Added);
        }
    }
    assert_eq!(table.insert(at(0), contact_in(5, 99, in_24(1, 99))), refused(TableRefusal::SubnetTable));
    assert_eq!(table.counters().subnet_table, 1);
}

#[test]
fn a_tenth_of_a_large_table_is_of_one_wide_subnet() {
    let mut table = Table::new(OWN, TableConfig::default());
    for seed in 0..60 {
        let bucket = u32::try_from(seed / 20).expect("small");
        assert_eq!(table.insert(at(0), contact_in(bucket, seed, public(1000 + seed))), Inserted::Added);
    }
    let attempts = (0..20_u8).map(|third| table.insert(at(0), contact_in(4, 500 + u64::from(third), in_24(third, 1))));
    let results: Vec<_> = attempts.collect();
    assert_eq!(results.iter().filter(|one| **one == Inserted::Added).count(), 6);
    assert_eq!(results.last(), Some(&refused(TableRefusal::Wide)));
    assert_eq!(table.counters().wide, 14);
}

#[test]
fn private_contacts_need_no_subnet_but_are_128_at_most() {
    let mut table = Table::new(OWN, TableConfig { k: 200, ..TableConfig::default() });
    for seed in 0..140_u64 {
        let [.., low] = seed.to_be_bytes();
        let result = table.insert(at(0), contact_in(0, seed, SocketAddr::from(([10, 0, 0, low], 1))));
        let expected = if seed < 128 { Inserted::Added } else { refused(TableRefusal::Private) };
        assert_eq!(result, expected);
    }
    assert_eq!(table.counters().private, 12);
}

#[test]
fn a_private_contact_does_not_displace_a_public_one_for_one_lost_probe() {
    let (mut table, _) = full_bucket(0, at(0));
    let private = contact_in(0, 100, SocketAddr::from(([192, 168, 1, 1], 1)));
    let Inserted::Full { probe } = table.insert(at(1000), Arc::clone(&private)) else { panic!("a probe is due") };
    assert_eq!(table.failed(at(1001), probe.peer()), Failed::Kept);
    assert_eq!(table.failed(at(1002), probe.peer()), Failed::Kept);
    assert_eq!(table.failed(at(1003), probe.peer()), Failed::Removed { replaced_by: Some(private) }, "gone for sure");
}

#[test]
fn those_who_wait_are_of_different_subnets_and_get_no_place_beyond_the_cap() {
    let (mut table, old) = full_bucket(0, at(0));
    let waiting: Vec<_> = (0..3_u8).map(|host| contact_in(0, 100 + u64::from(host), in_24(1, host + 1))).collect();
    assert_eq!(table.insert(at(1), Arc::clone(&waiting[0])), Inserted::Waiting);
    assert_eq!(table.insert(at(1), Arc::clone(&waiting[1])), Inserted::Waiting);
    assert_eq!(table.insert(at(1), Arc::clone(&waiting[2])), refused(TableRefusal::Subnet));
    for contact in &old[..2] {
        table.remove(contact.peer());
    }
    assert_eq!(table.len(), 20);
    assert_eq!(table.insert(at(2), Arc::clone(&waiting[2])), refused(TableRefusal::Subnet), "two have a place now");
}

#[test]
fn a_free_place_is_not_given_beyond_the_cap() {
    let mut table = Table::new(OWN, TableConfig::default());
    table.insert(at(0), contact_in(0, 200, in_24(1, 100)));
    let others: Vec<_> = (0..19).map(|seed| public_in(0, seed)).collect();
    for contact in &others {
        assert_eq!(table.insert(at(0), Arc::clone(contact)), Inserted::Added);
    }
    for host in 1..3_u8 {
        assert_eq!(table.insert(at(1), contact_in(0, 100 + u64::from(host), in_24(1, host))), Inserted::Waiting);
    }
    table.remove(others[0].peer());
    assert_eq!(table.len(), 20, "the second of the subnet");
    table.remove(others[1].peer());
    assert_eq!(table.len(), 19, "a third would be one too many");
}

#[test]
fn a_new_address_in_a_crowded_subnet_is_not_believed() {
    let mut table = Table::new(OWN, TableConfig::default());
    table.insert(at(0), contact_in(0, 1, in_24(1, 1)));
    table.insert(at(0), contact_in(0, 2, in_24(1, 2)));
    let third = contact_in(0, 3, in_24(2, 1));
    table.insert(at(0), Arc::clone(&third));
    let moved = Contact::new(*third.peer(), *third.admission(), vec![in_24(1, 9)]);
    assert_eq!(table.insert(at(1), Arc::new(moved)), refused(TableRefusal::Subnet));
    assert_eq!(table.get(third.peer()).expect("kept").contact(), &third);
    let elsewhere = Arc::new(Contact::new(*third.peer(), *third.admission(), vec![in_24(3, 9)]));
    assert_eq!(table.insert(at(2), Arc::clone(&elsewhere)), Inserted::Updated);
    assert_eq!(table.get(third.peer()).expect("kept").contact(), &elsewhere);
}
