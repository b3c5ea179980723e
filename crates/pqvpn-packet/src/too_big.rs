// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tells a local sender to send shorter packets: Packet-Too-Big, and the MSS in a TCP SYN.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    checksum,
    ip::{IpView, TCP},
};

/// Smallest MTU an IPv6 sender can be told (RFC 8200 5).
pub const MIN_MTU_V6: usize = 1280;
/// Smallest MTU an IPv4 sender is told; Linux believes nothing below 552.
pub const MIN_MTU_V4: usize = 576;

/// Bytes of the packet that an ICMPv4 error quotes besides its IP header; enough for a TCP header.
const QUOTED_V4: usize = 40;
/// Bytes of the packet that an ICMPv6 error quotes.
const QUOTED_V6: usize = 120;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TTL: u8 = 64;
/// TCP flags.
const SYN: u8 = 0x02;
/// Offset of the checksum in a TCP header.
const TCP_CSUM: usize = 16;

/// The packet that tells the sender of `packet` that only `mtu` bytes fit (RFC 1191, RFC 4443 3.2); `None` when it wants no
/// such word: an IPv4 packet that may be fragmented or is a later fragment, one that is short enough, an ICMP error, one
/// to or from an address that is nobody's or many's (RFC 1122 3.2.2, RFC 4443 2.4), or nothing that can be read. It comes from the destination, the nearest there is to a router on this road.
#[must_use]
pub fn too_big(packet: &[u8], len: usize, mtu: usize) -> Option<Vec<u8>> {
    let view = IpView::parse(packet).ok()?;
    let mtu = mtu.max(if view.is_v6() { MIN_MTU_V6 } else { MIN_MTU_V4 });
    if !is_one(view.src()) || !is_one(view.dst()) {
        return None;
    }
    if len <= mtu || matches!(view.protocol(), ICMP | ICMPV6) && is_error(&view) {
        return None;
    }
    let mtu = u32::try_from(mtu).ok()?;
    if view.is_v6() { too_big_v6(&view, mtu) } else { too_big_v4(&view, mtu) }
}

/// Whether an address is that of one host.
fn is_one(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// ICMP errors are answered by none (RFC 1122 3.2.2, RFC 4443 2.4); echoes may be.
fn is_error(view: &IpView<'_>) -> bool {
    let kind = view.l4().first().copied().unwrap_or(0);
    if view.is_v6() { kind < 128 } else { !matches!(kind, 0 | 8) }
}

fn too_big_v4(view: &IpView<'_>, mtu: u32) -> Option<Vec<u8>> {
    const DONT_FRAGMENT: u8 = 0x40;
    const OFFSET: u16 = 0x1fff;
    let packet = view.bytes();
    let offset = u16::from_be_bytes([packet[6], packet[7]]) & OFFSET;
    if packet[6] & DONT_FRAGMENT == 0 || offset != 0 {
        return None;
    }
    let quoted = packet.get(..packet.len().min(view.l4_offset() + QUOTED_V4))?;
    let len = u16::try_from(28 + quoted.len()).ok()?;
    let mut out = vec![0; 28];
    (out[0], out[8], out[9]) = (0x45, TTL, ICMP);
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out[12..16].copy_from_slice(&packet[16..20]);
    out[16..20].copy_from_slice(&packet[12..16]);
    let sum = checksum::checksum(&out[..20]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    (out[20], out[21]) = (3, 4);
    out[26..28].copy_from_slice(&u16::try_from(mtu).ok()?.to_be_bytes());
    out.extend_from_slice(quoted);
    let sum = checksum::checksum(&out[20..]);
    out[22..24].copy_from_slice(&sum.to_be_bytes());
    Some(out)
}

fn too_big_v6(view: &IpView<'_>, mtu: u32) -> Option<Vec<u8>> {
    let packet = view.bytes();
    let quoted = &packet[..packet.len().min(QUOTED_V6)];
    let len = u16::try_from(8 + quoted.len()).ok()?;
    let mut out = vec![0; 48];
    (out[0], out[6], out[7]) = (0x60, ICMPV6, TTL);
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out[8..24].copy_from_slice(&packet[24..40]);
    out[24..40].copy_from_slice(&packet[8..24]);
    out[40] = 2;
    out[44..48].copy_from_slice(&mtu.to_be_bytes());
    out.extend_from_slice(quoted);
    let pseudo = checksum::pseudo_header(&out[8..40], ICMPV6) + u64::from(len);
    let sum = !checksum::fold(checksum::add(pseudo, &out[40..]));
    out[42..44].copy_from_slice(&sum.to_be_bytes());
    Some(out)
}

/// Lowers the MSS of a TCP SYN so that the segments fit into packets of `mtu` bytes; gives whether it was changed.
/// `partial`: the checksum field holds the pseudo-header sum only, which knows nothing of options.
pub fn clamp_mss(packet: &mut [u8], partial: bool, mtu: usize) -> bool {
    let Some((at, l4, mss)) = mss_option(packet) else { return false };
    let headers = if packet[0] >> 4 == 6 { 60 } else { 40 };
    let Ok(most) = u16::try_from(mtu.saturating_sub(headers)) else { return false };
    if mss <= most {
        return false;
    }
    packet[at..at + 2].copy_from_slice(&most.to_be_bytes());
    if !partial {
        let sum = l4 + TCP_CSUM;
        let old = u16::from_be_bytes([packet[sum], packet[sum + 1]]);
        // RFC 1624: a word at an odd place counts with its bytes the other way round.
        let turn = |word: u16| if (at - l4).is_multiple_of(2) { word } else { word.swap_bytes() };
        let new = checksum::adjust(old, turn(mss), turn(most));
        packet[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
    }
    true
}

/// Whether a packet may be a TCP SYN: one look at what most packets differ in.
#[must_use]
pub fn may_be_syn(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let l4 = usize::from(packet[0] & 0x0f) * 4;
            packet.get(9) == Some(&TCP) && packet.get(l4 + 13).is_some_and(|flags| flags & SYN != 0)
        }
        // Extension headers in front of TCP are not looked behind.
        Some(6) => packet.get(6) == Some(&TCP) && packet.get(53).is_some_and(|flags| flags & SYN != 0),
        _ => false,
    }
}

/// Where the value of the MSS option is, where TCP begins, and the value.
fn mss_option(packet: &[u8]) -> Option<(usize, usize, u16)> {
    if !may_be_syn(packet) {
        return None;
    }
    let view = IpView::parse(packet).ok()?;
    if view.protocol() != TCP || view.is_fragment() {
        return None;
    }
    let (l4, tcp) = (view.l4_offset(), view.l4());
    let header = tcp.get(..usize::from(tcp.get(12)? >> 4) * 4)?;
    if header.len() < 20 || header[13] & SYN == 0 {
        return None;
    }
    let mut at = 20;
    loop {
        match *header.get(at)? {
            0 => return None,
            1 => at += 1,
            2 => {
                let &[len, a, b] = header.get(at + 1..)?.first_chunk()?;
                return (len == 4).then(|| (l4 + at + 2, l4, u16::from_be_bytes([a, b])));
            }
            _ => {
                let len = usize::from(*header.get(at + 1)?);
                at += if len < 2 { return None } else { len };
            }
        }
    }
}

#[cfg(test)]
mod tests;
