// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which links close, and which of the two ends decides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::link::fake::Fake;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

fn fake(peer: PeerId, side: Role, remote: SocketAddr) -> Arc<Fake> {
    Arc::new(Fake::new(peer, remote, side))
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// A link that leads nowhere.
pub(in crate::membership) fn link(peer: PeerId, now: Instant) -> NetLink {
    link_at(peer, now, NOWHERE)
}

/// A link to somebody who is at `remote`.
pub(in crate::membership) fn link_at(peer: PeerId, now: Instant, remote: SocketAddr) -> NetLink {
    NetLink::new(fake(peer, Role::Initiator, remote), Usage::new(now), None, now)
}

/// A link that somebody has dialled.
pub(in crate::membership) fn link_from(peer: PeerId, now: Instant) -> NetLink {
    NetLink::new(fake(peer, Role::Responder, NOWHERE), Usage::new(now), None, now)
}

/// Both ends of one link: that of `dialler` and that of `other`.
fn both(links: &mut [Links; 2], (dialler, other): (usize, usize), now: Instant) -> [LinkId; 2] {
    let mut end = |at: usize, of: usize, side| {
        links[at].insert(NetLink::new(fake(peer(of as u8), side, NOWHERE), Usage::new(now), None, now)).unwrap()
    };
    [end(dialler, other, Role::Initiator), end(other, dialler, Role::Responder)]
}

fn close_idle(links: &mut [Links; 2], now: Instant, wanted: [bool; 2]) -> [usize; 2] {
    for (own, links) in links.iter_mut().enumerate() {
        let wanted = wanted[own].then(|| peer(1 - own as u8)).into_iter().collect();
        links.close_idle(now, &peer(own as u8), &wanted);
    }
    [0, 1].map(|own| links[own].iter().count())
}

#[test]
fn a_link_that_is_not_wanted_rests_and_is_closed_by_its_dialler_alone() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    both(&mut links, (0, 1), now);
    assert_eq!(close_idle(&mut links, now, [false, false]), [1, 1]);
    assert_eq!(links[0].next_idle(now), Some(now + REST));
    let rested = now + REST;
    // News that pass meanwhile make it no younger: it was not wanted all the time.
    drop(links[0].iter().next().unwrap().1.usage.begin(rested - BUSY));
    assert_eq!(close_idle(&mut links, rested, [false, false]), [0, 1], "the other end waits for the dialler");
    assert_eq!(close_idle(&mut links, now + IDLE_AFTER, [false, false]), [0, 0], "but not for ever");
}

#[test]
fn a_wanted_link_stays_and_a_ring_that_turns_back_keeps_it() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    both(&mut links, (0, 1), now);
    for (second, wanted) in [(0, false), (9, true), (12, false), (21, false)] {
        assert_eq!(close_idle(&mut links, now + Duration::from_secs(second), [wanted, false]), [1, 1], "{second}");
    }
    assert_eq!(close_idle(&mut links, now + Duration::from_secs(22), [false, false]), [0, 1]);
}

#[test]
fn a_link_in_use_is_not_closed_under_who_uses_it() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    both(&mut links, (0, 1), now);
    let using = links[0].iter().next().unwrap().1.usage.begin(now);
    close_idle(&mut links, now, [false, false]);
    let later = now + IDLE_AFTER * 2;
    assert_eq!(close_idle(&mut links, later, [false, false])[0], 1);
    assert_eq!(links[0].next_idle(later), Some(later + BUSY));
    drop(using);
    assert_eq!(close_idle(&mut links, later, [false, false])[0], 0);
}

#[test]
fn of_two_links_that_cross_both_ends_keep_the_same() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    let kept = both(&mut links, (0, 1), now);
    both(&mut links, (1, 0), now);
    close_idle(&mut links, now, [true, true]);
    // The end that closed has told the other by then.
    let ended: Vec<LinkId> = links[0].iter().map(|(id, _)| id).filter(|id| *id != kept[0]).collect();
    assert_eq!(links[1].iter().map(|(id, _)| id).collect::<Vec<_>>(), [kept[1]], "the greater PeerID closes its own");
    for id in ended {
        links[0].remove(id);
    }
    assert_eq!(close_idle(&mut links, now + IDLE_AFTER / 2, [true, true]), [1, 1]);
}

#[test]
fn of_two_links_dialled_by_one_side_the_newer_stays() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    both(&mut links, (0, 1), now);
    let newer = both(&mut links, (0, 1), now);
    close_idle(&mut links, now, [true, false]);
    assert_eq!(links[0].iter().map(|(id, _)| id).collect::<Vec<_>>(), [newer[0]]);
}

#[test]
fn after_all_was_told_a_beat_is_enough_for_a_while() {
    let (mut links, now) = (<[Links; 2]>::default(), Instant::now());
    let [link, _] = both(&mut links, (0, 1), now);
    let (one, two) = (NetworkId::from_bytes([1; 32]), NetworkId::from_bytes([2; 32]));
    let link = links[0].get_mut(link).unwrap();
    assert!(!link.may_beat(&one, now));
    link.note_told(one, now);
    assert!(link.may_beat(&one, now + TELL_ALL - BUSY) && !link.may_beat(&two, now));
    assert!(!link.may_beat(&one, now + TELL_ALL));
}
