// SPDX-License-Identifier: MIT OR Apache-2.0
//! The addresses of an inner packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pqvpn_packet::ip::{IpView, TCP, UDP};

/// The source address of an IP packet.
pub(crate) fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..)?.first_chunk().map(|&octets: &[u8; 4]| Ipv4Addr::from(octets).into()),
        6 => packet.get(8..)?.first_chunk().map(|&octets: &[u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The destination address of an IP packet.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk().map(|&octets: &[u8; 4]| Ipv4Addr::from(octets).into()),
        6 => packet.get(24..)?.first_chunk().map(|&octets: &[u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// An ICMP error that does not say which packet it is about, or not in its first fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CutOff;

/// Where the packet went that an ICMP error is about (RFC 792, RFC 4443 §3); `None` for any other packet.
pub(crate) fn quoted_destination(packet: &[u8]) -> Result<Option<IpAddr>, CutOff> {
    const ICMP: u8 = 1;
    const ICMP_V6: u8 = 58;
    const ICMP_HEADER: usize = 8;
    // The usual packet costs one look.
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let protocol = packet.get(if is_v4 { 9 } else { 6 }).copied();
    if is_v4 && protocol != Some(ICMP) || matches!(protocol, Some(TCP | UDP) | None) {
        return Ok(None);
    }
    let Ok(view) = IpView::parse(packet) else { return Ok(None) };
    let is_later = is_v4 && view.is_fragment() && u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0;
    if is_later || !matches!((is_v4, view.protocol()), (true, ICMP) | (false, ICMP_V6)) {
        return Ok(None);
    }
    // What it is about may follow in a later fragment.
    let kind = *view.l4().first().ok_or(CutOff)?;
    let is_error = if is_v4 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 };
    if !is_error {
        return Ok(None);
    }
    let quoted = view.l4().get(ICMP_HEADER..).unwrap_or_default();
    match quoted.first().map(|first| first >> 4) {
        Some(4) if is_v4 => destination(quoted).map(Some).ok_or(CutOff),
        Some(6) if !is_v4 => destination(quoted).map(Some).ok_or(CutOff),
        _ => Err(CutOff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of `protocol` around `l4`, fragmented as `fragment` says.
    fn v4(protocol: u8, fragment: u16, l4: &[u8]) -> Vec<u8> {
        let len = (20 + l4.len() as u16).to_be_bytes();
        let [high, low] = fragment.to_be_bytes();
        let head = [0x45, 0, len[0], len[1], 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
        [&head, l4].concat()
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        let mut head = [0; 40];
        head[..8].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], next, 64]);
        head[39] = 9;
        [&head, rest].concat()
    }

    #[test]
    fn only_errors_quote_a_packet() {
        let quoted = v4(17, 0, &[0; 8]);
        let error = |kind: u8, quoted: &[u8]| [&[kind, 4, 0, 0, 0, 0, 2, 40], quoted].concat();
        let of = |packet: &[u8]| quoted_destination(packet);
        let there: IpAddr = "10.0.0.9".parse().unwrap();
        for kind in [3, 4, 5, 11, 12] {
            assert_eq!(of(&v4(1, 0, &error(kind, &quoted))), Ok(Some(there)));
            assert_eq!(of(&v4(1, 0x2000, &error(kind, &quoted))), Ok(Some(there)), "the first fragment");
            assert_eq!(of(&v4(1, 0x2000, &error(kind, &quoted[..19]))), Err(CutOff));
            assert_eq!(of(&v4(1, 0, &error(kind, &[]))), Err(CutOff));
        }
        assert_eq!(of(&v4(1, 0, &error(8, &quoted))), Ok(None), "an echo");
        assert_eq!(of(&v4(17, 0, &error(3, &quoted))), Ok(None), "no ICMP");
        assert_eq!(of(&v4(1, 0x0001, &error(3, &quoted))), Ok(None), "a later fragment");
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn errors_of_ipv6_quote_behind_extension_headers_too() {
        let (quoted, there) = (v6(17, &[0; 8]), Some("::9".parse().unwrap()));
        let too_big = [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat();
        assert_eq!(quoted_destination(&v6(58, &too_big)), Ok(there));
        let options = [&[58, 0, 1, 4, 0, 0, 0, 0], &too_big[..]].concat();
        assert_eq!(quoted_destination(&v6(60, &options)), Ok(there));
        assert_eq!(quoted_destination(&v6(60, &options[..30])), Err(CutOff));
        // A first fragment that ends where the error would begin.
        let fragment = [&[60, 0, 0, 1, 0, 0, 0, 7][..], &options[..8]].concat();
        assert_eq!(quoted_destination(&v6(44, &fragment)), Err(CutOff));
        let echo = [&[128, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat();
        assert_eq!(quoted_destination(&v6(58, &echo)), Ok(None));
    }
}
