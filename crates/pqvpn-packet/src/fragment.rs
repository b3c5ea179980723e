// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces of an inner packet that is longer than the path carries, and putting them together again.
//!
//! ```text
//!  0    1      2..6       6..8         8..10       10
//!  03 | kind | packet id | total u16 | unit u16 | index | unit bytes, the last piece what is left
//! ```
//! All pieces but the last are `unit` bytes long and piece `index` begins at `index * unit`: pieces cannot overlap, and one
//! that is not exactly as long as its place is refused. They travel sealed, so that only the peer can make any.

use crate::header::PacketKind;

/// Length of the header in front of each piece.
pub const FRAGMENT_LEN: usize = 11;
/// Fewest bytes of all pieces but the last.
pub const MIN_UNIT: usize = 128;
/// Most pieces of a packet.
pub const MAX_PIECES: usize = 64;

const FIRST_BYTE: u8 = 0x03;

/// Where a piece belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Length of the whole in bytes.
    pub total: u16,
    /// Length of all pieces but the last in bytes.
    pub unit: u16,
    /// Which piece it is.
    pub index: u8,
}

/// The header of a piece of an inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What the whole packet is.
    pub kind: PacketKind,
    /// Tells the packets of a sender apart.
    pub id: u32,
    /// Where the piece belongs.
    pub place: Place,
}

/// Why a piece is refused. The peer is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// It ends before its header, or before the bytes that belong to its place.
    #[error("truncated fragment")]
    Truncated,
    /// Its numbers contradict each other or are out of bounds.
    #[error("malformed fragment")]
    Malformed,
}

/// How a packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Length of all pieces but the last.
    pub unit: usize,
    /// How many pieces.
    pub count: usize,
}

/// How to cut a packet of `len` bytes so that no piece with its header is longer than `room`; `None` when that takes too
/// many or too small pieces. The pieces are about equal: a path that drops long packets drops none of them.
#[must_use]
pub const fn cut(len: usize, room: usize) -> Option<Cut> {
    let Some(most) = room.checked_sub(FRAGMENT_LEN) else { return None };
    if len == 0 || len > u16::MAX as usize || most < MIN_UNIT {
        return None;
    }
    let unit = len.div_ceil(len.div_ceil(most));
    let unit = if unit < MIN_UNIT { MIN_UNIT } else { unit };
    let count = len.div_ceil(unit);
    if count > MAX_PIECES { None } else { Some(Cut { unit, count }) }
}

impl Place {
    /// How many pieces the whole has.
    #[must_use]
    pub const fn count(&self) -> usize {
        (self.total as usize).div_ceil(self.unit as usize)
    }

    /// Where the piece begins.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.index as usize * self.unit as usize
    }

    /// Checks the numbers against each other and takes exactly the bytes that belong to the place.
    pub(crate) fn of(self, bytes: &[u8], most: usize) -> Result<&[u8], FragmentError> {
        if usize::from(self.unit) < MIN_UNIT || self.total == 0 {
            return Err(FragmentError::Malformed);
        }
        let count = self.count();
        if count > most || usize::from(self.index) >= count {
            return Err(FragmentError::Malformed);
        }
        let len = usize::from(self.unit).min(usize::from(self.total) - self.offset());
        bytes.get(..len).ok_or(FragmentError::Truncated)
    }
}

impl Fragment {
    /// The bytes in front of the piece.
    #[must_use]
    pub const fn encode(&self) -> [u8; FRAGMENT_LEN] {
        let [a, b, c, d] = self.id.to_be_bytes();
        let ([t0, t1], [u0, u1]) = (self.place.total.to_be_bytes(), self.place.unit.to_be_bytes());
        [FIRST_BYTE, self.kind as u8, a, b, c, d, t0, t1, u0, u1, self.place.index]
    }

    /// Reads a piece; gives its header and exactly the bytes of its place. What follows them is padding.
    ///
    /// # Errors
    /// [`FragmentError`], whatever the bytes.
    pub fn decode(plaintext: &[u8]) -> Result<(Self, &[u8]), FragmentError> {
        let Some((&[FIRST_BYTE, kind, a, b, c, d, t0, t1, u0, u1, index], rest)) =
            plaintext.split_first_chunk::<FRAGMENT_LEN>()
        else {
            return Err(FragmentError::Truncated);
        };
        let kind = PacketKind::from_u8(kind).ok_or(FragmentError::Malformed)?;
        let place = Place { total: u16::from_be_bytes([t0, t1]), unit: u16::from_be_bytes([u0, u1]), index };
        let bytes = place.of(rest, MAX_PIECES)?;
        if place.count() < 2 {
            return Err(FragmentError::Malformed);
        }
        Ok((Self { kind, id: u32::from_be_bytes([a, b, c, d]), place }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(total: u16, unit: u16, index: u8) -> Vec<u8> {
        let head = Fragment { kind: PacketKind::Data, id: 7, place: Place { total, unit, index } };
        [&head.encode()[..], &[9; 2000]].concat()
    }

    #[test]
    fn a_piece_has_the_length_of_its_place_and_the_rest_is_padding() {
        for (index, len) in [(0, 500), (1, 500), (2, 1)] {
            let bytes = piece(1001, 500, index);
            let (head, body) = Fragment::decode(&bytes).unwrap();
            assert_eq!((head.place.offset(), body.len(), head.place.count()), (usize::from(index) * 500, len, 3));
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        for (total, unit, index) in [
            (1001, 500, 3),
            (1001, 500, 255),
            (0, 500, 0),
            (1001, 0, 0),
            (1001, 127, 0),
            (65535, 128, 0),
            (500, 500, 0),
        ] {
            assert_eq!(
                Fragment::decode(&piece(total, unit, index)),
                Err(FragmentError::Malformed),
                "{total} {unit} {index}"
            );
        }
        assert_eq!(Fragment::decode(&piece(1001, 500, 1)[..FRAGMENT_LEN + 499]), Err(FragmentError::Truncated));
        let mut bytes = piece(1001, 500, 0);
        bytes[1] = 6;
        assert_eq!(Fragment::decode(&bytes), Err(FragmentError::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_is_whole_again(len in 1500_usize..3000, room in 200_usize..1500) {
            let cut = cut(len, room).unwrap();
            let packet: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut whole = vec![0; len];
            for (index, part) in packet.chunks(cut.unit).enumerate() {
                let place = Place { total: len as u16, unit: cut.unit as u16, index: index as u8 };
                let head = Fragment { kind: PacketKind::Data, id: 1, place };
                let bytes = [&head.encode()[..], part].concat();
                prop_assert!(bytes.len() <= room);
                let (back, body) = Fragment::decode(&bytes).unwrap();
                prop_assert_eq!((back, body.len(), place.count()), (head, part.len(), cut.count));
                whole[place.offset()..place.offset() + body.len()].copy_from_slice(body);
            }
            prop_assert_eq!(whole, packet);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((head, body)) = Fragment::decode(&bytes) {
                prop_assert!(head.place.offset() + body.len() <= usize::from(head.place.total));
            }
        }
    }
}
