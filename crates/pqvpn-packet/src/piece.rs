// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces of a datagram of a link, where the path does not carry the 1200 bytes that QUIC needs.
//!
//! ```text
//!  0            1       2..4        4..6       6..8     8
//!  101x xxxx  | index | total u16 | unit u16 | id u16 | the bytes of the place
//! ```
//! Nobody has authenticated them: what is put together of them is looked at like any datagram that came whole.

use crate::fragment::{FragmentError, MIN_UNIT, Place};

/// Length of the header in front of each piece.
pub const PIECE_LEN: usize = 8;
/// Most pieces of a datagram.
pub const MAX_PIECES: usize = 16;

/// The fixed top three bits of byte 0.
const FIXED_BITS: u8 = 0b1010_0000;
/// Where the fixed bits sit.
const FIXED_MASK: u8 = 0b1110_0000;

/// The header of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Tells the datagrams of a sender apart.
    pub id: u16,
    /// Where the piece belongs.
    pub place: Place,
}

impl Piece {
    /// The bytes in front of the piece.
    #[must_use]
    pub const fn encode(&self) -> [u8; PIECE_LEN] {
        let ([t0, t1], [u0, u1]) = (self.place.total.to_be_bytes(), self.place.unit.to_be_bytes());
        let [a, b] = self.id.to_be_bytes();
        [FIXED_BITS, self.place.index, t0, t1, u0, u1, a, b]
    }

    /// Reads a piece; gives its header and its bytes, which are exactly as many as belong to its place.
    ///
    /// # Errors
    /// [`FragmentError`], whatever the bytes.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), FragmentError> {
        let Some((&[first, index, t0, t1, u0, u1, a, b], rest)) = datagram.split_first_chunk::<PIECE_LEN>() else {
            return Err(FragmentError::Truncated);
        };
        let place = Place { total: u16::from_be_bytes([t0, t1]), unit: u16::from_be_bytes([u0, u1]), index };
        let bytes = place.of(rest, MAX_PIECES)?;
        // What fits one piece goes whole.
        if !is_piece(first) || place.count() < 2 || bytes.len() != rest.len() {
            return Err(FragmentError::Malformed);
        }
        Ok((Self { id: u16::from_be_bytes([a, b]), place }, bytes))
    }
}

/// Whether a datagram with this first byte is a piece of one.
#[must_use]
pub const fn is_piece(first_byte: u8) -> bool {
    first_byte & FIXED_MASK == FIXED_BITS
}

/// Cuts a datagram into pieces of about the same length, none longer than `room` with its header; none at all when it is
/// too long for that, or fits one.
pub fn pieces(datagram: &[u8], id: u16, room: usize) -> impl Iterator<Item = Vec<u8>> {
    let most = room.saturating_sub(PIECE_LEN).max(MIN_UNIT);
    let unit = datagram.len().div_ceil(datagram.len().div_ceil(most).max(1)).max(MIN_UNIT);
    let total =
        u16::try_from(datagram.len()).ok().filter(|_| (2..=MAX_PIECES).contains(&datagram.len().div_ceil(unit)));
    let places = total.zip(u16::try_from(unit).ok());
    places.into_iter().flat_map(move |(total, unit)| {
        (0..).zip(datagram.chunks(usize::from(unit))).map(move |(index, bytes)| {
            let head = Piece { id, place: Place { total, unit, index } };
            [&head.encode()[..], bytes].concat()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{header::is_tunnel, relay::is_relay};
    use proptest::prelude::*;

    #[test]
    fn no_first_byte_belongs_to_two_kinds() {
        let all: Vec<u8> = (0..=255).filter(|&first| is_piece(first)).collect();
        assert_eq!(all, (0xa0..=0xbf).collect::<Vec<u8>>());
        assert!(all.iter().all(|&first| !is_tunnel(first) && !is_relay(first) && first & 0x40 == 0 && first > 3));
    }

    #[test]
    fn a_piece_is_exactly_as_long_as_its_place() {
        let whole: Vec<Vec<u8>> = pieces(&[7; 1200], 9, 500).collect();
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [408, 408, 408]);
        let longer = [&whole[0][..], &[0]].concat();
        assert_eq!(Piece::decode(&longer), Err(FragmentError::Malformed));
        assert_eq!(Piece::decode(&whole[0][..407]), Err(FragmentError::Truncated));
        let mut beyond = whole[0].clone();
        beyond[1] = 3;
        assert_eq!(Piece::decode(&beyond), Err(FragmentError::Malformed));
        let alone = Piece { id: 9, place: Place { total: 200, unit: 200, index: 0 } };
        assert_eq!(Piece::decode(&[&alone.encode()[..], &[7; 200]].concat()), Err(FragmentError::Malformed));
        assert_eq!([60_000, 492].map(|len| pieces(&vec![0; len], 9, 500).count()), [0, 0]);
    }

    proptest! {
        #[test]
        fn pieces_are_whole_again(datagram in prop::collection::vec(any::<u8>(), 477..1600), id: u16) {
            let mut whole = vec![0; datagram.len()];
            let mut seen = 0;
            for piece in pieces(&datagram, id, 484) {
                prop_assert!(piece.len() <= 484);
                let (head, bytes) = Piece::decode(&piece).unwrap();
                prop_assert_eq!(head.id, id);
                whole[head.place.offset()..head.place.offset() + bytes.len()].copy_from_slice(bytes);
                seen += 1;
                prop_assert!(seen <= head.place.count());
            }
            prop_assert_eq!(whole, datagram);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((head, body)) = Piece::decode(&bytes) {
                prop_assert!(head.place.offset() + body.len() <= usize::from(head.place.total));
            }
        }
    }
}
