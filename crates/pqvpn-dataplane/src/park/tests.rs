// SPDX-License-Identifier: MIT OR Apache-2.0
//! Apart from the source, which `tests/interleavings.rs` takes in without them.

use crate::park::{PARKED_BYTES, PARKED_PACKETS, Parked};

#[test]
fn packets_come_back_in_order_and_once() {
    let parked = Parked::default();
    for i in 0..5u8 {
        assert!(parked.park(&[i; 3]));
    }
    assert_eq!(parked.len(), 5);
    let mut out = Vec::new();
    parked.drain(|packet| out.push(packet[0]));
    assert_eq!(out, [0, 1, 2, 3, 4]);
    assert_eq!(parked.len(), 0);
    parked.drain(|_| panic!("nothing is left"));
}

#[test]
fn the_number_of_packets_is_bounded() {
    let parked = Parked::default();
    for _ in 0..PARKED_PACKETS {
        assert!(parked.park(&[0]));
    }
    assert!(!parked.park(&[0]));
    assert_eq!(parked.len(), PARKED_PACKETS);
}

#[test]
fn the_number_of_bytes_is_bounded() {
    let parked = Parked::default();
    let packet = vec![0; 65_536];
    for _ in 0..PARKED_BYTES / packet.len() {
        assert!(parked.park(&packet));
    }
    assert!(!parked.park(&[0]));
    parked.drain(|_| ());
    assert!(parked.park(&packet), "room again after a flush");
}
