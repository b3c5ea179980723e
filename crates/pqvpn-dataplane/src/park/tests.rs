// SPDX-License-Identifier: MIT OR Apache-2.0
//! Apart from the source, which `tests/interleavings.rs` takes in without them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::park::{Lost, PARKED_BYTES, PARKED_FOR, PARKED_IN_ALL, PARKED_PACKETS, Parked};

const KEPT: Lost = Lost { overflow: 0, expired: 0 };

fn left(parked: &Parked, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(parked.drain(now, |packet| out.push(packet[0])), 0);
    out
}

#[test]
fn packets_come_back_in_order_and_once() {
    let (parked, now) = (Parked::default(), Instant::now());
    for i in 0..5u8 {
        assert_eq!(parked.park(&[i; 3], now), KEPT);
    }
    assert_eq!(parked.len(), 5);
    assert_eq!(left(&parked, now), [0, 1, 2, 3, 4]);
    assert_eq!(parked.len(), 0);
    assert_eq!(parked.drain(now, |_| panic!("nothing is left")), 0);
}

#[test]
fn the_number_of_packets_is_bounded_and_the_newest_are_kept() {
    let (parked, now) = (Parked::default(), Instant::now());
    for i in 0..PARKED_PACKETS {
        assert_eq!(parked.park(&[u8::try_from(i).unwrap()], now), KEPT);
    }
    assert_eq!(parked.park(&[200], now), Lost { overflow: 1, expired: 0 });
    assert_eq!(parked.len(), PARKED_PACKETS);
    let left = left(&parked, now);
    assert_eq!((left[0], left[PARKED_PACKETS - 1]), (1, 200));
}

#[test]
fn the_number_of_bytes_is_bounded_and_the_newest_are_kept() {
    let (parked, now) = (Parked::default(), Instant::now());
    let whole = PARKED_BYTES / 65_536;
    for i in 0..whole {
        assert_eq!(parked.park(&vec![u8::try_from(i).unwrap(); 65_536], now), KEPT);
    }
    assert_eq!(parked.park(&[200], now), Lost { overflow: 1, expired: 0 });
    assert_eq!(parked.len(), whole);
    assert_eq!(parked.park(&vec![201; PARKED_BYTES + 1], now), Lost { overflow: 1, expired: 0 });
    let left = left(&parked, now);
    assert_eq!((left[0], left.last()), (1, Some(&200)));
    assert_eq!(parked.park(&vec![0; PARKED_BYTES], now), KEPT, "room again after a flush");
}

#[test]
fn the_bytes_of_all_peers_are_bounded_and_come_free_again() {
    let (in_all, now) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let full = PARKED_IN_ALL / PARKED_BYTES;
    let all: Vec<Parked> = (0..=full).map(|_| Parked::counted_in(Arc::clone(&in_all))).collect();
    for parked in &all[..full] {
        for _ in 0..PARKED_BYTES / 65_536 {
            assert_eq!(parked.park(&vec![1; 65_536], now), KEPT);
        }
    }
    let refused = Lost { overflow: 1, expired: 0 };
    assert_eq!(all[full].park(&[2], now), refused, "no room");
    assert_eq!(all[0].park(&[2], now), refused, "but its own oldest makes room");
    assert_eq!(left(&all[0], now).last(), Some(&2));
    assert_eq!(all[full].park(&[2], now), KEPT);
    let later = now + PARKED_FOR;
    assert_eq!(all.iter().map(|parked| parked.expire(later)).sum::<u64>(), (full as u64 - 1) * 4 + 1);
    assert_eq!(in_all.load(Ordering::Relaxed), 0);
    let removed = Parked::counted_in(Arc::clone(&in_all));
    assert_eq!((removed.park(&[2], later), in_all.load(Ordering::Relaxed)), (KEPT, 1));
    drop(removed);
    assert_eq!(in_all.load(Ordering::Relaxed), 0);
    assert!(all.iter().all(|parked| parked.len() == 0));
}

#[test]
fn what_waited_too_long_is_not_sent() {
    let (parked, start) = (Parked::default(), Instant::now());
    let ms = Duration::from_millis(1);
    for (number, at) in [(1, start), (2, start + ms), (3, start + PARKED_FOR - ms)] {
        assert_eq!(parked.park(&[number], at), KEPT);
    }
    assert_eq!(parked.park(&[4], start + PARKED_FOR), Lost { overflow: 0, expired: 1 });
    let mut out = Vec::new();
    assert_eq!(parked.drain(start + PARKED_FOR + ms, |packet| out.push(packet[0])), 1);
    assert_eq!(out, [3, 4]);
}
