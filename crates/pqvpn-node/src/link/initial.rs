// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be read of QUIC packets without keys: enough to tell first packets from all else (RFC 9000 §17.2).

/// What the datagram of a first packet has at least (RFC 9000 §14.1).
pub(super) const SMALLEST: usize = 1200;
/// Set in every packet of QUIC (RFC 9000 §17.2).
const FIXED_BIT: u8 = 0x40;
/// The longest connection id (RFC 9000 §17.2).
const LONGEST_ID: usize = 20;

/// An Initial (RFC 9000 §17.2.2) in a datagram large enough for a first packet.
#[derive(Debug)]
pub(super) struct Initial<'p> {
    /// Destination connection id.
    pub(super) to: &'p [u8],
    /// Source connection id.
    pub(super) from: &'p [u8],
    pub(super) token: &'p [u8],
}

/// What becomes of a first packet while everybody has to prove his address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is for QUIC to look at.
    Quic,
    /// That, and QUIC sees nothing of it.
    Retry(Vec<u8>),
    /// Neither.
    Silence,
}

impl<'p> Initial<'p> {
    /// `None`: it is none that QUIC would answer.
    pub(super) fn read(datagram: &'p [u8]) -> Option<Self> {
        let first = *datagram.first().filter(|_| is_initial(datagram) && datagram.len() >= SMALLEST)?;
        if first & FIXED_BIT == 0 {
            return None;
        }
        let (to, from) = ids(datagram)?;
        // Behind first byte, version, and ids with their lengths.
        let (length, after) = varint(datagram.get(7 + to.len() + from.len()..)?)?;
        Some(Self { to, from, token: after.get(..usize::try_from(length).ok()?)? })
    }
}

/// Whether a packet with a long header is an Initial.
pub(super) fn is_initial(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xb0 == 0x80)
}

/// Destination and source connection id of a packet of QUIC version 1 with a long header (RFC 9000 §17.2).
pub(super) fn ids(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let after = packet.strip_prefix(&[*packet.first()?, 0, 0, 0, 1]).filter(|_| packet[0] & 0x80 != 0)?;
    let (to, after) = id(after)?;
    Some((to, id(after)?.0))
}

fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first()?;
    after.split_at_checked(usize::from(*length)).filter(|(id, _)| id.len() <= LONGEST_ID)
}

/// A number whose first two bits say how many bytes it has (RFC 9000 §16).
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (number, after) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = number[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_length() {
        // RFC 9000 A.1.
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(varint(&eight), Some((151_288_809_941_952_652, &[][..])));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d, 1]), Some((494_878_333, &[1][..])));
        assert_eq!(varint(&[0x7b, 0xbd]), Some((15_293, &[][..])));
        assert_eq!((varint(&[0x25]), varint(&[0x40, 0x25])), (Some((37, &[][..])), Some((37, &[][..]))));
        assert!(varint(&[]).is_none() && (1..8).all(|cut| varint(&eight[..cut]).is_none()));
    }
}
