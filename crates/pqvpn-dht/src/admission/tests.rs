// SPDX-License-Identifier: MIT OR Apache-2.0
//! Weeks, contacts and the memory of proofs.

use std::net::{IpAddr, SocketAddr};

use pqvpn_wire::dht::Admission;

use super::*;
use crate::{
    address::{Realm, Why},
    rules::fixture::{TODAY_MS, at, peer},
};

const DIFFICULTY: u32 = 512;

/// Below 2^256 / 512.
fn good() -> [u8; 32] {
    let mut out = [0xff; 32];
    out[..2].copy_from_slice(&[0, 0x7f]);
    out
}

fn contact(in_week: u32, out: [u8; 32], addresses: &[&str]) -> Contact {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Contact::new(peer(1), Admission { week: in_week, nonce: 3, out }, addresses)
}

fn judge(contact: &Contact, told_by: Option<&str>) -> Result<(), ContactRefusal> {
    plausible(contact, at(0), DIFFICULTY, told_by.map(|ip| ip.parse::<IpAddr>().unwrap()))
}

fn this_week() -> u32 {
    week(&peer(1), TODAY_MS)
}

#[test]
fn weeks_are_seven_days_and_begin_at_different_times() {
    let mut begins = Vec::new();
    for n in 0..200 {
        let (id, now) = (peer(n), TODAY_MS);
        let end = week_ends(&id, now);
        assert!(end > now && end <= now + WEEK_MS);
        assert_eq!(week(&id, end - 1), week(&id, now));
        assert_eq!(week(&id, end), week(&id, now) + 1);
        assert_eq!(week(&id, end + WEEK_MS - 1), week(&id, now) + 1);
        begins.push(end);
    }
    begins.sort_unstable();
    let widest_gap = begins.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest_gap < WEEK_MS / 10, "200 peers spread over the week");
    assert_eq!(week(&peer(1), u64::MAX), u32::MAX, "saturates");
}

#[test]
fn a_week_counts_one_hour_into_its_neighbours() {
    let id = peer(1);
    let (now, end) = (this_week(), week_ends(&id, TODAY_MS));
    assert!(current(&id, now, end - 1));
    assert!(current(&id, now, end + WEEK_GRACE_MS - 1));
    assert!(!current(&id, now, end + WEEK_GRACE_MS));
    assert!(current(&id, now + 1, end - WEEK_GRACE_MS));
    assert!(!current(&id, now + 1, end - WEEK_GRACE_MS - 1));
    assert!(!current(&id, now + 2, end) && !current(&id, now - 1, end));
}

#[test]
fn a_good_contact_passes() {
    assert_eq!(judge(&contact(this_week(), good(), &["8.8.8.8:1", "[2a00::1]:1"]), None), Ok(()));
}

#[test]
fn a_contact_of_another_week_is_refused() {
    for in_week in [this_week() - 1, this_week() + 1, 0, u32::MAX] {
        assert_eq!(judge(&contact(in_week, good(), &["8.8.8.8:1"]), None), Err(ContactRefusal::Week), "{in_week}");
    }
}

#[test]
fn a_contact_without_enough_work_is_refused() {
    let mut out = [0; 32];
    out[1] = 0x80;
    let just_missed = contact(this_week(), out, &["8.8.8.8:1"]);
    assert_eq!(judge(&just_missed, None), Err(ContactRefusal::Work));
    assert_eq!(plausible(&just_missed, at(0), 511, None), Ok(()));
    assert_eq!(judge(&contact(this_week(), [0xff; 32], &["8.8.8.8:1"]), None), Err(ContactRefusal::Work));
}

#[test]
fn a_contact_needs_addresses_that_may_be_dialled() {
    let with = |addresses: &[&str], told_by| judge(&contact(this_week(), good(), addresses), told_by);
    assert_eq!(with(&[], None), Err(ContactRefusal::AddressCount));
    let private = Err(ContactRefusal::Address(AddressRefusal::Private));
    assert_eq!(with(&["8.8.8.8:1", "10.0.0.1:1"], None), private);
    assert_eq!(with(&["10.0.0.1:1"], Some("9.9.9.9")), private);
    assert_eq!(with(&["10.0.0.1:1"], Some("10.0.0.2")), Ok(()));
    for (address, why) in
        [("127.0.0.1:1", Why::Loopback), ("8.8.8.8:0", Why::PortZero), ("255.255.255.255:1", Why::Broadcast)]
    {
        assert_eq!(with(&[address], Some("10.0.0.2")), Err(ContactRefusal::Address(AddressRefusal::Bogon(why))));
    }
    let lab = Origin { realm: Realm::Lab, told_by: None };
    assert_eq!(plausible(&contact(this_week(), good(), &["127.0.0.1:1"]), at(0), DIFFICULTY, lab), Ok(()));
}

#[test]
fn every_refusal_has_its_own_counter() {
    let refusals = [
        ContactRefusal::AddressCount,
        ContactRefusal::Address(AddressRefusal::Private),
        ContactRefusal::Address(AddressRefusal::Bogon(Why::Loopback)),
        ContactRefusal::Week,
        ContactRefusal::Work,
    ];
    let counters: std::collections::BTreeSet<Attack> = refusals.iter().map(|refusal| refusal.attack()).collect();
    assert_eq!(counters.len(), refusals.len());
}

#[test]
fn exactly_the_position_that_was_evaluated_is_admitted() {
    let mut admitted = Admitted::default();
    let known = contact(this_week(), good(), &["8.8.8.8:1"]);
    assert!(!admitted.contains(&known));
    admitted.insert(at(0), &known);
    assert!(admitted.contains(&known));
    assert!(admitted.contains(&contact(this_week(), good(), &["9.9.9.9:9"])), "addresses are not part of the proof");
    assert!(!admitted.contains(&contact(this_week() + 1, good(), &["8.8.8.8:1"])));
    let mut other = good();
    other[31] ^= 1;
    assert!(!admitted.contains(&contact(this_week(), other, &["8.8.8.8:1"])), "a position of the peer's own choice");
    let stolen = Contact::new(peer(2), *known.admission(), vec![SocketAddr::from(([8, 8, 8, 8], 1))]);
    assert!(!admitted.contains(&stolen), "somebody else's proof");
    admitted.insert(at(0), &contact(this_week() + 1, good(), &["8.8.8.8:1"]));
    assert!(!admitted.contains(&known), "one position at a time");
    admitted.remove(&peer(1));
    assert!(admitted.is_empty());
}

#[test]
fn proofs_are_evaluated_twenty_times_a_second_at_most() {
    let mut admitted = Admitted::default();
    let count = (0..10_000).filter(|ms| admitted.may_evaluate(at(*ms))).count();
    assert!((263..=264).contains(&count), "{count}: a burst of 64, then 20 a second");
}

#[test]
fn the_memory_of_positions_is_bounded() {
    let mut admitted = Admitted::new(100);
    for n in 0..1000 {
        admitted.insert(at(0), &Contact::new(peer(n), Admission { week: 1, nonce: 1, out: [0; 32] }, Vec::new()));
        assert!(admitted.len() <= 100);
    }
    assert!(admitted.take_forgotten() >= 900);
}
