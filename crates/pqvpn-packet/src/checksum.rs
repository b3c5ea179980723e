// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Internet checksum: full (RFC 1071), incremental (RFC 1624), and the pseudo-header sums of TCP and UDP.

/// Adds big-endian 16-bit words to a running one's-complement sum; an odd last byte counts as its high half.
///
/// `acc` may be any earlier sum; it cannot overflow with fewer than 2^32 bytes in all.
#[must_use]
pub fn add(acc: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut acc = words.iter().fold(acc, |acc, word| acc + u64::from(u32::from_be_bytes(*word)));
    let (pair, last) = rest.as_chunks::<2>();
    if let [pair] = pair {
        acc += u64::from(u16::from_be_bytes(*pair));
    }
    if let [byte] = last {
        acc += u64::from(*byte) << 8;
    }
    acc
}

/// Folds a running sum to 16 bits, not complemented.
#[must_use]
pub const fn fold(acc: u64) -> u16 {
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    acc as u16
}

/// The checksum of `bytes`: the complement of their folded sum.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(add(0, bytes))
}

/// The running sum of a pseudo-header without its length; `addresses` is source followed by destination, both IPv4
/// or both IPv6, exactly as they stand in the header.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8) -> u64 {
    add(u64::from(protocol), addresses)
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub const fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum) as u64 + (!old) as u64 + new as u64)
}

/// Finishes a partial checksum in place: the range from `start` to the end of `packet`, checksum at `start + offset`.
/// Returns whether the range lies inside the packet; if not, nothing is changed.
///
/// A result of zero is written as 0xffff, as UDP needs it; for the other protocols the two mean the same.
#[must_use]
pub fn complete(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(range) = packet.get_mut(start..) else {
        return false;
    };
    if offset.checked_add(2).is_none_or(|end| end > range.len()) {
        return false;
    }
    let sum = match checksum(range) {
        0 => 0xffff,
        sum => sum,
    };
    range[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 word for word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        assert_eq!(adjust(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn fold_carries_as_often_as_needed() {
        assert_eq!(fold(0xffff_ffff_ffff), 0xffff);
        assert_eq!(fold(0x1_ffff), 1);
        assert_eq!(fold(0xfffe_0001_ffff), naive_fold(0xfffe_0001_ffff));
    }

    fn naive_fold(mut acc: u64) -> u16 {
        while acc > 0xffff {
            acc = (acc >> 16) + (acc & 0xffff);
        }
        acc as u16
    }

    #[test]
    fn ranges_outside_the_packet_are_refused() {
        let mut packet = [1; 20];
        for (start, offset) in [(21, 0), (20, 0), (19, 0), (0, 19), (usize::MAX, 1), (4, usize::MAX)] {
            assert!(!complete(&mut packet, start, offset), "{start} {offset}");
        }
        assert_eq!(packet, [1; 20]);
        assert!(complete(&mut packet, 18, 0));
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn folding_any_sum(acc in 0_u64..1 << 60) {
            prop_assert_eq!(fold(acc), naive_fold(acc));
        }

        #[test]
        fn adjusting_equals_recomputing(bytes: [u8; 20], at in 0_usize..10, new: u16) {
            let old = u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            let mut changed = bytes;
            changed[2 * at..2 * at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assume!(changed != [0; 20]);
            prop_assert_eq!(adjust(naive(&bytes), old, new), naive(&changed));
        }
    }
}
