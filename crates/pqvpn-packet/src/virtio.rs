// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtio network header a TUN with `IFF_VNET_HDR` puts before each packet (`linux/virtio_net.h`).

/// Length of the header in bytes (without `num_buffers`).
pub const VIRTIO_NET_HDR_LEN: usize = 10;

/// Flag: the checksum at `csum_start + csum_offset` holds only the pseudo-header sum.
pub const F_NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was verified.
pub const F_DATA_VALID: u8 = 2;

/// Not a super-packet.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4, to be cut into `gso_size` pieces.
pub const GSO_TCPV4: u8 = 1;
/// UDP fragmentation offload (UFO); gone from Linux, never accepted here.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6, to be cut into `gso_size` pieces.
pub const GSO_TCPV6: u8 = 4;
/// UDP datagrams of `gso_size` bytes each (USO), IPv4 or IPv6.
pub const GSO_UDP_L4: u8 = 5;
/// Or-ed to a TCP type: CWR is set, on the first segment only.
pub const GSO_ECN: u8 = 0x80;

/// The header's fields; all zero for a plain packet with a complete checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// [`F_NEEDS_CSUM`], [`F_DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` types, TCP types with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers in front of the payload; a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed range begins, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum lies, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHdr {
    /// The header's bytes; 16-bit fields in the machine's own order, as the TUN driver has them by default.
    #[must_use]
    pub const fn encode(&self) -> [u8; VIRTIO_NET_HDR_LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// Reads the header in front of a packet; `None` when fewer than ten bytes are there.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[flags, gso_type, a, b, c, d, e, f, g, h] = bytes.first_chunk::<VIRTIO_NET_HDR_LEN>()?;
        Some(Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        })
    }

    /// Whether the checksum still has to be finished.
    #[must_use]
    pub const fn needs_csum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decode_inverts_encode(bytes: [u8; VIRTIO_NET_HDR_LEN]) {
            let header = VirtioNetHdr::decode(&bytes).unwrap();
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn short_input_is_refused() {
        assert_eq!(VirtioNetHdr::decode(&[0; 9]), None);
        assert!(VirtioNetHdr { flags: F_NEEDS_CSUM, ..VirtioNetHdr::default() }.needs_csum());
    }
}
