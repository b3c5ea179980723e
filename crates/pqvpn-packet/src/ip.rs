// SPDX-License-Identifier: MIT OR Apache-2.0
//! A checked, read-only look at an IPv4 or IPv6 packet, up to its transport header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Length of an IPv6 header in bytes.
const V6_HEADER: usize = 40;
/// Extension headers followed before a packet is refused; real ones carry at most two or three.
const MAX_EXTENSIONS: usize = 8;

/// Why bytes are not an IP packet one can handle. Their sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpError {
    /// The packet ends before its own headers or its own total length do.
    #[error("truncated IP packet")]
    Truncated,
    /// The version is neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// A length field contradicts itself, or there are too many extension headers.
    #[error("malformed IP header")]
    Malformed,
}

/// A parsed packet; every accessor is a read at a known place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpView<'a> {
    /// The packet without padding.
    bytes: &'a [u8],
    l4_offset: usize,
    protocol: u8,
    fragment: bool,
}

impl<'a> IpView<'a> {
    /// Parses the headers; bytes after the packet's own total length are padding and left out of the view.
    ///
    /// # Errors
    /// [`IpError`], never a panic, whatever the bytes.
    pub fn parse(packet: &'a [u8]) -> Result<Self, IpError> {
        let first = *packet.first().ok_or(IpError::Truncated)?;
        match first >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            version => Err(IpError::Version(version)),
        }
    }

    fn parse_v4(packet: &'a [u8]) -> Result<Self, IpError> {
        let header = packet.first_chunk::<20>().ok_or(IpError::Truncated)?;
        let l4_offset = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if l4_offset < 20 || total_len < l4_offset {
            return Err(IpError::Malformed);
        }
        let bytes = packet.get(..total_len).ok_or(IpError::Truncated)?;
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        Ok(Self { bytes, l4_offset, protocol: header[9], fragment })
    }

    fn parse_v6(packet: &'a [u8]) -> Result<Self, IpError> {
        let header = packet.first_chunk::<V6_HEADER>().ok_or(IpError::Truncated)?;
        let total_len = V6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let bytes = packet.get(..total_len).ok_or(IpError::Truncated)?;
        let mut view = Self { bytes, l4_offset: V6_HEADER, protocol: header[6], fragment: false };
        for _ in 0..MAX_EXTENSIONS {
            if !view.skip_extension()? {
                return Ok(view);
            }
        }
        Err(IpError::Malformed)
    }

    /// Steps over one extension header (RFC 8200 4, RFC 4302); false when the transport header is reached.
    fn skip_extension(&mut self) -> Result<bool, IpError> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        if !matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return Ok(false);
        }
        let extension = self.bytes[self.l4_offset..].first_chunk::<8>().ok_or(IpError::Malformed)?;
        let len = match self.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        if self.protocol == FRAGMENT {
            let field = u16::from_be_bytes([extension[2], extension[3]]);
            let (offset, more) = (field & 0xfff8, field & 1);
            self.fragment = offset != 0 || more != 0;
            // Later pieces have no transport header to find.
            if offset != 0 {
                return Ok(false);
            }
        }
        self.l4_offset += len;
        self.protocol = extension[0];
        if self.l4_offset > self.bytes.len() {
            return Err(IpError::Malformed);
        }
        Ok(true)
    }

    /// The packet without padding, headers included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether this is IPv6 (else IPv4).
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.bytes[0] >> 4 == 6
    }

    /// Source address.
    #[must_use]
    pub fn src(&self) -> IpAddr {
        self.address(0)
    }

    /// Destination address.
    #[must_use]
    pub fn dst(&self) -> IpAddr {
        self.address(1)
    }

    /// Source and destination as they stand in the header: 8 or 32 bytes.
    #[must_use]
    pub fn addresses(&self) -> &'a [u8] {
        if self.is_v6() { &self.bytes[8..40] } else { &self.bytes[12..20] }
    }

    /// Transport protocol; 44 for a later IPv6 fragment.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Length of the packet in bytes, as its header says.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the transport header begins.
    #[must_use]
    pub const fn l4_offset(&self) -> usize {
        self.l4_offset
    }

    /// Transport header and payload.
    #[must_use]
    pub fn l4(&self) -> &'a [u8] {
        &self.bytes[self.l4_offset..]
    }

    /// TTL or hop limit.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        if self.is_v6() { self.bytes[7] } else { self.bytes[8] }
    }

    /// Whether this is a piece of a larger packet (also the first one).
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// Source and destination port of unfragmented TCP or UDP.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        if self.fragment || !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        let &[a, b, c, d] = self.l4().first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    fn address(&self, which: usize) -> IpAddr {
        let addresses = self.addresses();
        let (one, two) = addresses.split_at(addresses.len() / 2);
        let octets = if which == 0 { one } else { two };
        match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
            (Ok(v4), _) => Ipv4Addr::from(v4).into(),
            (_, Ok(v6)) => Ipv6Addr::from(v6).into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(total_len: u16, ihl: u8, frag: u16) -> Vec<u8> {
        let mut packet = vec![0; usize::from(total_len)];
        packet[0] = 0x40 | ihl;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet[6..8].copy_from_slice(&frag.to_be_bytes());
        packet[8] = 61;
        packet[9] = UDP;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next;
        packet[7] = 62;
        packet[8] = 0xfd;
        packet[39] = 9;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn reads_v4_and_drops_padding() {
        let mut packet = v4(28, 5, 0x4000);
        packet[20..24].copy_from_slice(&[0, 53, 1, 0]);
        packet.extend([0; 7]);
        let view = IpView::parse(&packet).unwrap();
        assert_eq!((view.total_len(), view.l4_offset(), view.protocol(), view.ttl()), (28, 20, UDP, 61));
        assert_eq!(view.src(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(view.dst(), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(view.ports(), Some((53, 256)));
        assert!(!view.is_fragment() && !view.is_v6());
    }

    #[test]
    fn skips_v6_extension_headers() {
        let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then destination options of 16 bytes
        payload.extend([44, 1]);
        payload.extend([0; 14]);
        payload.extend([TCP, 0, 0, 0, 1, 2, 3, 4]); // atomic fragment
        payload.extend([0, 80, 0, 81]);
        let packet = v6(0, &payload);
        let view = IpView::parse(&packet).unwrap();
        assert_eq!((view.l4_offset(), view.protocol(), view.ttl()), (40 + 32, TCP, 62));
        assert_eq!(view.ports(), Some((80, 81)));
        assert!(!view.is_fragment());
        assert_eq!(view.src().to_string(), "fd00::");
        assert_eq!(view.dst().to_string(), "::9");
    }

    #[test]
    fn fragments_have_no_ports() {
        assert!(IpView::parse(&v4(40, 5, 0x2000)).unwrap().is_fragment());
        assert_eq!(IpView::parse(&v4(40, 5, 0x0001)).unwrap().ports(), None);
        let first = v6(44, &[UDP, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
        let view = IpView::parse(&first).unwrap();
        assert_eq!((view.protocol(), view.is_fragment(), view.ports()), (UDP, true, None));
        let later = v6(44, &[UDP, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4]);
        let view = IpView::parse(&later).unwrap();
        assert_eq!((view.protocol(), view.is_fragment()), (44, true));
    }

    #[test]
    fn refusals_are_typed() {
        assert_eq!(IpView::parse(&[]), Err(IpError::Truncated));
        assert_eq!(IpView::parse(&[0x50; 60]), Err(IpError::Version(5)));
        assert_eq!(IpView::parse(&v4(28, 5, 0)[..27]), Err(IpError::Truncated));
        assert_eq!(IpView::parse(&v4(28, 4, 0)), Err(IpError::Malformed));
        assert_eq!(IpView::parse(&v4(28, 8, 0)), Err(IpError::Malformed));
        assert_eq!(IpView::parse(&v6(UDP, &[1, 2])[..41]), Err(IpError::Truncated));
        assert_eq!(IpView::parse(&v6(0, &[6, 9, 0, 0, 0, 0, 0, 0])), Err(IpError::Malformed));
        let endless: Vec<u8> = [60, 0, 0, 0, 0, 0, 0, 0].repeat(9);
        assert_eq!(IpView::parse(&v6(60, &endless)), Err(IpError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), six: bool, lie: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 | *first & 15 } else { 0x40 | *first & 15 };
            }
            if lie && bytes.len() > 40 {
                let len = bytes.len();
                bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                bytes[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            }
            if let Ok(view) = IpView::parse(&bytes) {
                prop_assert!(view.l4_offset() <= view.total_len());
                let _ = (view.src(), view.dst(), view.ports(), view.ttl(), view.l4().len());
            }
        }
    }
}
