// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 8-byte header that stands in front of a whole datagram on its way to or from a relay.
//!
//! ```text
//!  0            1..8           8..
//!  100x xxxx  | channel u56  | a tunnel packet or a QUIC packet
//! ```
//! The relay writes another channel into the header and sends the datagram on; it looks at nothing behind it. The low
//! five bits of byte 0 mean nothing and may hold anything.

/// Length of the relay header in bytes.
pub const RELAY_LEN: usize = 8;
/// Bits of a channel.
pub const CHANNEL_BITS: u32 = 56;

/// The fixed top three bits of byte 0.
const FIXED_BITS: u8 = 0b1000_0000;
/// Where the fixed bits sit.
const FIXED_MASK: u8 = 0b1110_0000;

/// The number of one direction of a way through a relay: 56 bits, never more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u64);

impl Channel {
    /// The channel of this number, `None` when it has more than [`CHANNEL_BITS`] bits.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number >> CHANNEL_BITS == 0 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The relay header of this channel.
    #[must_use]
    pub const fn header(self) -> [u8; RELAY_LEN] {
        let [_, a, b, c, d, e, f, g] = self.0.to_be_bytes();
        [FIXED_BITS, a, b, c, d, e, f, g]
    }

    /// The channel of a relay datagram, `None` when it is none or ends with its header.
    #[must_use]
    pub const fn of(datagram: &[u8]) -> Option<Self> {
        match datagram {
            &[first, a, b, c, d, e, f, g, _, ..] if is_relay(first) => {
                Some(Self(u64::from_be_bytes([0, a, b, c, d, e, f, g])))
            }
            _ => None,
        }
    }

    /// Writes this channel over that of a relay datagram. A datagram without a whole header stays as it is.
    pub fn write(self, datagram: &mut [u8]) {
        if let Some(header) = datagram.first_chunk_mut() {
            *header = self.header();
        }
    }
}

/// Whether a datagram with this first byte has a relay header in front: neither QUIC (bit 0x40) nor STUN (0..=3) nor a
/// tunnel packet (0x20..=0x3f) looks like it.
#[must_use]
pub const fn is_relay(first_byte: u8) -> bool {
    first_byte & FIXED_MASK == FIXED_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::is_tunnel;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_eight_bytes_big_endian() {
        let channel = Channel::new(0x01_0203_0405_0607).unwrap();
        assert_eq!(channel.header(), [0x80, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Channel::of(&[0x9f, 1, 2, 3, 4, 5, 6, 7, 0x40]), Some(channel));
    }

    #[test]
    fn a_channel_has_56_bits() {
        assert!(Channel::new((1 << 56) - 1).is_some());
        assert_eq!(Channel::new(1 << 56), None);
        assert_eq!(Channel::new(u64::MAX), None);
    }

    #[test]
    fn a_header_with_nothing_behind_it_is_no_relay_datagram() {
        let header = Channel::new(7).unwrap().header();
        for len in 0..=RELAY_LEN {
            assert_eq!(Channel::of(&header[..len]), None);
        }
    }

    #[test]
    fn no_first_byte_belongs_to_two_kinds() {
        let relays: Vec<u8> = (0..=255).filter(|&first| is_relay(first)).collect();
        assert_eq!(relays, (0x80..=0x9f).collect::<Vec<u8>>());
        assert!(relays.iter().all(|&first| !is_tunnel(first) && first & 0x40 == 0 && first > 3));
    }

    #[test]
    fn writing_into_too_little_changes_nothing() {
        let mut short = [9; RELAY_LEN - 1];
        Channel::new(7).unwrap().write(&mut short);
        assert_eq!(short, [9; RELAY_LEN - 1]);
    }

    proptest! {
        #[test]
        fn channels_round_trip(number in 0..1_u64 << CHANNEL_BITS, low in 0..32_u8, rest in prop::collection::vec(any::<u8>(), 1..64)) {
            let channel = Channel::new(number).unwrap();
            let mut datagram = channel.header().to_vec();
            datagram[0] |= low;
            datagram.extend(&rest);
            prop_assert_eq!(Channel::of(&datagram), Some(channel));
            prop_assert_eq!(&datagram[RELAY_LEN..], &rest[..]);
        }

        #[test]
        fn another_channel_replaces_the_first_and_touches_nothing_else(
            from in 0..1_u64 << CHANNEL_BITS, to in 0..1_u64 << CHANNEL_BITS, rest in prop::collection::vec(any::<u8>(), 1..64)
        ) {
            let (from, to) = (Channel::new(from).unwrap(), Channel::new(to).unwrap());
            let mut datagram = [&from.header()[..], &rest].concat();
            to.write(&mut datagram);
            prop_assert_eq!(Channel::of(&datagram), Some(to));
            prop_assert_eq!(&datagram[RELAY_LEN..], &rest[..]);
        }

        #[test]
        fn whatever_came_is_a_relay_datagram_only_by_its_first_byte_and_length(datagram in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = datagram.len() > RELAY_LEN && is_relay(datagram[0]);
            prop_assert_eq!(Channel::of(&datagram).is_some(), expected);
        }
    }
}
