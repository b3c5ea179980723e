// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 16-byte tunnel header in front of every sealed packet (security.md 1.5).
//!
//! ```text
//!  0            1         2..4        4..8            8..16        16 ..           end-16..end
//!  001k kkkk  | epoch lo8 | phase lo16 | receiver index | counter u64 | ciphertext    | tag
//! ```
//! The three fixed bits tell a datagram of ours from QUIC (bit 0x40) and STUN (0..=3) before anything is decoded.
//! Everything but those bits and the receiver index is masked on the wire (header protection, as in QUIC); the AEAD
//! authenticates the unmasked bytes.

/// Length of the tunnel header in bytes.
pub const HEADER_LEN: usize = 16;
/// Length of the AEAD tag in bytes.
pub const TAG_LEN: usize = 16;
/// What the tunnel adds to an inner packet: header and tag, 32 bytes.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Length of the header protection mask in bytes.
pub const MASK_LEN: usize = 12;
/// Length of the ciphertext sample the mask is computed from; every sealed packet has it (the tag alone suffices).
pub const SAMPLE_LEN: usize = 16;

/// The fixed top three bits of byte 0.
const FIXED_BITS: u8 = 0b0010_0000;
/// Where the fixed bits sit.
const FIXED_MASK: u8 = 0b1110_0000;
/// The low five bits of byte 0: the packet kind.
const KIND_MASK: u8 = 0b0001_1111;

/// What a tunnel packet carries, in the authenticated low five bits of byte 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// An inner packet as [`crate::inner::Inner`] says, complete.
    Data = 4,
    /// An inner TCP or UDP packet whose checksum field holds only the pseudo-header sum, for the receiving kernel
    /// to finish when the packet leaves the machine (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    DataPartial = 5,
}

impl PacketKind {
    /// The kind with this number, `None` when there is none.
    #[must_use]
    pub const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            4 => Some(Self::Data),
            5 => Some(Self::DataPartial),
            _ => None,
        }
    }
}

/// Why a header cannot be decoded. The sender is at fault, or the packet is not one of his.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer than [`HEADER_LEN`] bytes.
    #[error("tunnel header needs {HEADER_LEN} bytes, got {0}")]
    Short(usize),
    /// The three fixed bits of byte 0 differ.
    #[error("not a tunnel packet: first byte {0:#04x}")]
    NotTunnel(u8),
    /// The five kind bits name no known kind.
    #[error("unknown packet kind {0}")]
    UnknownKind(u8),
}

/// The decoded, unmasked tunnel header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the packet carries.
    pub kind: PacketKind,
    /// Low 8 bits of the ratchet epoch.
    pub epoch_lo: u8,
    /// Low 16 bits of the hash phase within the epoch.
    pub phase_lo: u16,
    /// Index the receiver gave this session.
    pub receiver: u32,
    /// Packet counter; never resets during a session.
    pub counter: u64,
}

impl Header {
    /// The 16 unmasked bytes: what the AEAD authenticates, and the wire bytes once [`apply_mask`] ran.
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [p0, p1] = self.phase_lo.to_be_bytes();
        let [r0, r1, r2, r3] = self.receiver.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        let kind = FIXED_BITS | self.kind as u8;
        [kind, self.epoch_lo, p0, p1, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// Decodes the first 16 bytes of an unmasked packet.
    ///
    /// # Errors
    /// [`HeaderError`]: too short, not a tunnel packet, unknown kind.
    pub fn decode(packet: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = packet.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short(packet.len()));
        };
        let &[first, epoch_lo, p0, p1, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7] = bytes;
        if !is_tunnel(first) {
            return Err(HeaderError::NotTunnel(first));
        }
        let number = first & KIND_MASK;
        let kind = PacketKind::from_u8(number).ok_or(HeaderError::UnknownKind(number))?;
        Ok(Self {
            kind,
            epoch_lo,
            phase_lo: u16::from_be_bytes([p0, p1]),
            receiver: u32::from_be_bytes([r0, r1, r2, r3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }
}

/// Masks or unmasks a header in place (the operation is its own inverse).
///
/// Byte 0 keeps its fixed bits, bytes 4..8 (the receiver index) stay readable.
pub fn apply_mask(header: &mut [u8; HEADER_LEN], mask: &[u8; MASK_LEN]) {
    header[0] ^= mask[0] & KIND_MASK;
    for (byte, mask) in header[1..4].iter_mut().zip(&mask[1..4]) {
        *byte ^= mask;
    }
    for (byte, mask) in header[8..16].iter_mut().zip(&mask[4..12]) {
        *byte ^= mask;
    }
}

/// Whether a datagram with this first byte is a tunnel packet rather than QUIC or STUN (link.md 5).
#[must_use]
pub const fn is_tunnel(first_byte: u8) -> bool {
    first_byte & FIXED_MASK == FIXED_BITS
}

/// The receiver index of a masked or unmasked datagram, `None` when it cannot hold header and tag.
#[must_use]
pub fn receiver_of(datagram: &[u8]) -> Option<u32> {
    if datagram.len() < OVERHEAD {
        return None;
    }
    datagram[4..].first_chunk().map(|index| u32::from_be_bytes(*index))
}

/// The ciphertext sample the mask is computed from: bytes 16..32, `None` when the datagram is too short.
#[must_use]
pub fn sample_of(datagram: &[u8]) -> Option<&[u8; SAMPLE_LEN]> {
    datagram.get(HEADER_LEN..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Header {
        Header { kind: PacketKind::DataPartial, epoch_lo: 0xe1, phase_lo: 0xabcd, receiver: 0x0102_0304, counter: 77 }
    }

    #[test]
    fn layout_is_the_published_one() {
        let bytes = example().encode();
        assert_eq!(bytes, [0x25, 0xe1, 0xab, 0xcd, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 77]);
    }

    #[test]
    fn masking_keeps_the_fixed_bits_and_the_receiver_index() {
        let plain = example().encode();
        let mut masked = plain;
        apply_mask(&mut masked, &[0xff; MASK_LEN]);
        assert!(is_tunnel(masked[0]));
        assert_eq!(masked[4..8], plain[4..8]);
        assert_eq!(masked[0], plain[0] ^ 0x1f);
        assert!((1..4).chain(8..16).all(|i| masked[i] == !plain[i]));
    }

    #[test]
    fn each_mask_byte_lands_on_its_own_header_byte() {
        let mask = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let mut header = [0; HEADER_LEN];
        apply_mask(&mut header, &mask);
        assert_eq!(header, [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn quic_and_stun_first_bytes_are_not_ours() {
        for first in (0x40..=0xff).chain(0..=3) {
            assert!(!is_tunnel(first), "{first:#x}");
        }
        assert!((0x20..=0x3f).all(is_tunnel));
    }

    #[test]
    fn refusals_are_typed() {
        let mut bytes = example().encode();
        assert_eq!(Header::decode(&bytes[..15]), Err(HeaderError::Short(15)));
        bytes[0] = 0x45;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::NotTunnel(0x45)));
        bytes[0] = 0x2a;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::UnknownKind(10)));
        assert_eq!(receiver_of(&[0x24; OVERHEAD - 1]), None);
        assert_eq!(receiver_of(&[0x24; OVERHEAD]), Some(0x2424_2424));
        assert_eq!(sample_of(&[0; 31]), None);
        assert_eq!(sample_of(&[7; 32]), Some(&[7; 16]));
    }

    proptest! {
        #[test]
        fn encode_mask_unmask_decode_is_identity(
            partial: bool, epoch_lo: u8, phase_lo: u16, receiver: u32, counter: u64, mask: [u8; MASK_LEN],
        ) {
            let kind = if partial { PacketKind::DataPartial } else { PacketKind::Data };
            let header = Header { kind, epoch_lo, phase_lo, receiver, counter };
            let mut bytes = header.encode();
            apply_mask(&mut bytes, &mask);
            prop_assert!(is_tunnel(bytes[0]));
            apply_mask(&mut bytes, &mask);
            prop_assert_eq!(Header::decode(&bytes), Ok(header));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_LEN]);
            }
            let _ = (receiver_of(&bytes), sample_of(&bytes));
        }
    }
}
