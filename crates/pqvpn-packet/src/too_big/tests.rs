// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::testpackets::Super;
use proptest::prelude::*;

fn packet(v6: bool, len: usize) -> Vec<u8> {
    let payload = vec![7; len - if v6 { 72 } else { 52 }];
    Super { v6, payload, mss: 65_000, ..Super::tcp(1) }.packet()
}

/// The checksum over an ICMP message, with its pseudo-header for IPv6, is right when the sum of everything is all ones.
fn icmp_sum(reply: &[u8]) -> u16 {
    if reply[0] >> 4 == 4 {
        return checksum::checksum(&reply[20..]);
    }
    let pseudo = checksum::pseudo_header(&reply[8..40], ICMPV6) + (reply.len() - 40) as u64;
    !checksum::fold(checksum::add(pseudo, &reply[40..]))
}

#[test]
fn a_long_ipv4_packet_is_answered_by_fragmentation_needed() {
    let sent = packet(false, 1400);
    let reply = too_big(&sent, 1400, 1200).unwrap();
    let view = IpView::parse(&reply).unwrap();
    assert_eq!((view.protocol(), view.l4_offset(), view.bytes().len()), (ICMP, 20, reply.len()));
    assert_eq!((&reply[12..16], &reply[16..20]), (&sent[16..20], &sent[12..16]));
    assert_eq!((reply[20], reply[21], u16::from_be_bytes([reply[26], reply[27]])), (3, 4, 1200));
    assert_eq!(&reply[28..68], &sent[..40], "addresses, ports and sequence number are quoted");
    assert_eq!((checksum::checksum(&reply[..20]), icmp_sum(&reply)), (0, 0));
}

#[test]
fn a_long_ipv6_packet_is_answered_by_packet_too_big_of_1280_at_least() {
    let sent = packet(true, 1400);
    for (mtu, told) in [(1300, 1300), (900, 1280)] {
        let reply = too_big(&sent, 1400, mtu).unwrap();
        let view = IpView::parse(&reply).unwrap();
        assert_eq!((view.protocol(), view.l4_offset(), view.bytes().len()), (ICMPV6, 40, reply.len()));
        assert_eq!((&reply[8..24], &reply[24..40]), (&sent[24..40], &sent[8..24]));
        assert_eq!((reply[40], reply[41]), (2, 0));
        assert_eq!(reply[44..48], u32::to_be_bytes(told));
        assert_eq!(&reply[48..108], &sent[..60]);
        assert_eq!(icmp_sum(&reply), 0);
    }
}

#[test]
fn who_wants_no_word_gets_none() {
    assert_eq!(too_big(&packet(true, 1280), 1280, 900), None, "no IPv6 sender can send less");
    assert_eq!(too_big(&packet(false, 1200), 1200, 1200), None, "it fits");
    let mut fragmentable = packet(false, 1400);
    fragmentable[6] = 0;
    assert_eq!(too_big(&fragmentable, 1400, 1200), None);
    let mut later = packet(false, 1400);
    later[7] = 1;
    assert_eq!(too_big(&later, 1400, 1200), None, "the first fragment was answered");
    for bytes in [&[][..], &[0x45], &[0x60; 40], &[0; 60]] {
        assert_eq!(too_big(bytes, 2000, 1200), None);
    }
}

/// A packet with such addresses as source and destination; `None` leaves one of somebody's.
fn between(v6: bool, ends: [Option<&[u8]>; 2]) -> Vec<u8> {
    let (mut packet, first, len) = (packet(v6, 1400), if v6 { 8 } else { 12 }, if v6 { 16 } else { 4 });
    for (at, end) in (first..).step_by(len).zip(ends) {
        if let Some(end) = end {
            packet[at..at + len].copy_from_slice(end);
        }
    }
    packet
}

const GROUPS: [(bool, &[u8]); 6] = [
    (false, &[224, 0, 0, 1]),
    (false, &[239, 255, 255, 255]),
    (false, &[255; 4]),
    (true, &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    (true, &[0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]),
    (true, &[0xff; 16]),
];

#[test]
fn a_group_is_told_nothing_or_one_packet_would_make_many() {
    for (v6, group) in GROUPS {
        assert_eq!(too_big(&between(v6, [Some(group), None]), 1400, 1290), None, "from {group:?}");
    }
}

#[test]
fn what_is_sent_to_a_group_is_answered_by_none_of_its_members() {
    for (v6, group) in GROUPS {
        assert_eq!(too_big(&between(v6, [None, Some(group)]), 1400, 1290), None, "to {group:?}");
    }
}

#[test]
fn an_address_that_is_nobodys_is_told_nothing_and_tells_nothing() {
    for (v6, nobody) in [(false, &[0; 4][..]), (true, &[0; 16])] {
        assert!(too_big(&between(v6, [None, None]), 1400, 1290).is_some());
        for ends in [[Some(nobody), None], [None, Some(nobody)]] {
            assert_eq!(too_big(&between(v6, ends), 1400, 1290), None, "{ends:?}");
        }
    }
}

#[test]
fn an_error_is_not_answered_by_another() {
    for (v6, kind, told) in [(false, 8, true), (false, 0, true), (false, 3, false), (true, 128, true), (true, 2, false)]
    {
        let mut icmp = packet(v6, 1400);
        icmp[if v6 { 6 } else { 9 }] = if v6 { ICMPV6 } else { ICMP };
        icmp[if v6 { 40 } else { 20 }] = kind;
        assert_eq!(too_big(&icmp, 1400, 1290).is_some(), told, "ICMP {kind}");
    }
}

/// A SYN whose options are `options`, with a whole checksum.
fn syn(v6: bool, options: &[u8]) -> Vec<u8> {
    let sender = Super { v6, flags: SYN, options: options.len(), payload: Vec::new(), ..Super::tcp(1) };
    let (mut packet, l4) = (sender.packet(), sender.l4_offset());
    packet[l4 + 20..].copy_from_slice(options);
    assert!(checksum::complete(&mut packet, l4, TCP_CSUM));
    packet
}

fn tcp_sum(packet: &[u8]) -> u16 {
    let view = IpView::parse(packet).unwrap();
    let pseudo = checksum::pseudo_header(view.addresses(), TCP) + view.l4().len() as u64;
    checksum::fold(checksum::add(pseudo, view.l4()))
}

#[test]
fn the_mss_of_a_syn_is_lowered_wherever_it_is_and_its_checksum_stays_right() {
    for v6 in [false, true] {
        for options in [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 1, 1, 0], &[4, 2, 2, 4, 5, 180, 1, 1]] {
            let mut packet = syn(v6, options);
            assert!(clamp_mss(&mut packet, false, 1200));
            let at = mss_option(&packet).unwrap();
            assert_eq!(at.2, if v6 { 1140 } else { 1160 });
            assert_eq!(tcp_sum(&packet), 0xffff, "{options:?}");
            assert!(!clamp_mss(&mut packet, false, 1200), "once is enough");
            assert!(!clamp_mss(&mut packet, false, 1500), "it is never raised");
        }
    }
}

#[test]
fn a_partial_checksum_knows_nothing_of_options() {
    let sender = Super { flags: SYN, options: 4, payload: Vec::new(), ..Super::tcp(1) };
    let mut packet = sender.packet();
    packet[40..44].copy_from_slice(&[2, 4, 5, 180]);
    let before = packet.clone();
    assert!(clamp_mss(&mut packet, true, 1200));
    assert_eq!(packet[36..38], before[36..38]);
    assert_eq!(packet[42..44], 1160_u16.to_be_bytes());
}

#[test]
fn what_is_no_syn_or_has_no_mss_stays_as_it_is() {
    let mut data = Super { options: 4, ..Super::tcp(1) }.packet();
    data[40..44].copy_from_slice(&[2, 4, 5, 180]);
    let cases = [
        data,
        syn(false, &[1, 1, 1, 1]),
        syn(false, &[0, 2, 4, 5, 180, 0, 0, 0]),
        syn(false, &[3, 0, 2, 4, 5, 180, 0, 0]),
        syn(false, &[2, 3, 5, 1]),
    ];
    for mut packet in cases {
        let before = packet.clone();
        assert!(!clamp_mss(&mut packet, false, 600));
        assert_eq!(packet, before);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), v6: bool, mtu in 0_usize..2000) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let len = bytes.len();
        _ = too_big(&bytes, 2000, mtu);
        clamp_mss(&mut bytes, false, mtu);
        prop_assert_eq!(bytes.len(), len);
    }

    #[test]
    fn no_options_make_it_panic(options in prop::collection::vec(any::<u8>(), 0..10)) {
        let mut options = options;
        options.resize(options.len().div_ceil(4) * 4, 0);
        let mut packet = syn(false, &options);
        clamp_mss(&mut packet, false, 700);
        prop_assert_eq!(tcp_sum(&packet), 0xffff);
    }
}
