// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes: no panic, and what is read of them lies inside its bounds. Shared with the fuzz targets.

use pqvpn_packet::{fragment::Fragment, piece::Piece, too_big};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 3] = [("fragment", fragment), ("piece", piece), ("too_big", too_big)];

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

fn fragment(data: &[u8]) {
    if let Ok((head, bytes)) = Fragment::decode(data) {
        assert!(head.place.offset() + bytes.len() <= usize::from(head.place.total));
        assert_eq!([&head.encode()[..], bytes].concat(), data[..head.encode().len() + bytes.len()]);
    }
}

fn piece(data: &[u8]) {
    if let Ok((head, bytes)) = Piece::decode(data) {
        assert!(head.place.offset() + bytes.len() <= usize::from(head.place.total));
        assert_eq!([&head.encode()[1..], bytes].concat(), data[1..]);
    }
}

/// Any packet may be one that a local sender is told about, or one whose SYN is changed.
fn too_big(data: &[u8]) {
    if let Some(told) = too_big::too_big(data, 1500, 1300) {
        assert!(told.len() <= 168);
        assert_eq!(too_big::too_big(&told, 1500, 1300), None, "an error answers no error");
    }
    let mut packet = data.to_vec();
    too_big::clamp_mss(&mut packet, false, 1300);
    assert_eq!(packet.len(), data.len());
    assert!(!too_big::clamp_mss(&mut packet, false, 1300));
}
