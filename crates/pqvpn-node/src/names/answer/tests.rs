// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers byte by byte where it matters, and to every malformed query.

use proptest::prelude::*;

use super::*;
use crate::names::tests::{home, id, mesh};

fn table() -> NameTable {
    NameTable::of(&[home()], &mesh(&[home()]), id(1))
}

fn query(name: &str, kind: QTYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).unwrap(), kind, CLASS::IN.into(), false));
    packet
}

fn ask(name: &str, kind: impl Into<QTYPE>) -> (Vec<u8>, Outcome) {
    let query = query(name, kind.into()).build_bytes_vec().unwrap();
    let (reply, outcome) = answer(&table(), &query, Transport::Udp);
    let reply = reply.unwrap();
    assert!(reply.len() <= UDP_LIMIT);
    assert_eq!(reply[..2], query[..2]);
    (reply, outcome)
}

/// Code, number of answers, number of authorities.
fn shape(reply: &[u8]) -> (RCODE, usize, usize) {
    let packet = Packet::parse(reply).unwrap();
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    assert!(!packet.has_flags(PacketFlag::RECURSION_AVAILABLE));
    (packet.rcode(), packet.answers.len(), packet.name_servers.len())
}

#[test]
fn both_families_of_a_member() {
    for (kind, text) in [(TYPE::A, "10.100.1.2"), (TYPE::AAAA, "fd01:101:101::2")] {
        let (reply, outcome) = ask("phone.home.pqvpn", kind);
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!((shape(&reply), outcome), ((RCODE::NoError, 1, 0), Outcome::Answered));
        assert!(packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
        assert_eq!((packet.answers[0].ttl, packet.questions.len()), (TTL, 1));
        let address = if let RData::A(a) = &packet.answers[0].rdata {
            std::net::Ipv4Addr::from(a.address).to_string()
        } else if let RData::AAAA(a) = &packet.answers[0].rdata {
            std::net::Ipv6Addr::from(a.address).to_string()
        } else {
            panic!("{packet:?}")
        };
        assert_eq!(address, text);
    }
    assert_eq!(shape(&ask("phone.home.pqvpn", QTYPE::ANY).0), (RCODE::NoError, 2, 0));
}

#[test]
fn the_question_s_spelling_is_kept_and_does_not_matter() {
    let (reply, _) = ask("PhOnE.hOmE.PQvpn", TYPE::A);
    assert_eq!(shape(&reply), (RCODE::NoError, 1, 0));
    assert_eq!(Packet::parse(&reply).unwrap().questions[0].qname.to_string(), "PhOnE.hOmE.PQvpn");
}

#[test]
fn inside_the_zone_no_means_no() {
    for name in ["nas.home.pqvpn", "x.pqvpn", "a.phone.home.pqvpn", "9.1.100.10.in-addr.arpa"] {
        let (reply, outcome) = ask(name, TYPE::A);
        assert_eq!((shape(&reply), outcome), ((RCODE::NameError, 0, 1), Outcome::Negative), "{name}");
        // RFC 2308: how long the no may be kept.
        let packet = Packet::parse(&reply).unwrap();
        assert!(matches!(&packet.name_servers[0].rdata, RData::SOA(soa) if soa.minimum == NEGATIVE_TTL));
    }
    for (name, kind) in [("phone.home.pqvpn", TYPE::MX), ("home.pqvpn", TYPE::A), ("pqvpn", TYPE::A)] {
        assert_eq!(shape(&ask(name, kind).0), (RCODE::NoError, 0, 1), "{name}");
    }
    assert_eq!(shape(&ask("pqvpn", TYPE::SOA).0), (RCODE::NoError, 1, 0));
    assert_eq!(shape(&ask("pqvpn", TYPE::NS).0), (RCODE::NoError, 1, 0));
}

#[test]
fn outside_the_zone_nothing_is_said() {
    for name in ["example.org", "pqvpn.org", "localhost", "1.0.0.127.in-addr.arpa", "8.8.8.8.in-addr.arpa", "."] {
        let (reply, outcome) = ask(name, TYPE::A);
        assert_eq!((shape(&reply), outcome), ((RCODE::Refused, 0, 0), Outcome::Refused), "{name}");
    }
}

#[test]
fn addresses_lead_back_to_names() {
    let (reply, _) = ask("2.1.100.10.in-addr.arpa", TYPE::PTR);
    let packet = Packet::parse(&reply).unwrap();
    assert!(matches!(&packet.answers[0].rdata, RData::PTR(name) if name.0.to_string() == "phone.home.pqvpn"));
    assert_eq!(shape(&ask("2.1.100.10.in-addr.arpa", TYPE::A).0), (RCODE::NoError, 0, 1));
}

#[test]
fn a_dot_inside_a_label_makes_another_name() {
    let labels = [simple_dns::Label::new(&b"phone.home"[..]).unwrap(), simple_dns::Label::new(&b"pqvpn"[..]).unwrap()];
    let mut packet = Packet::new_query(1);
    let name = Name::new_with_labels(&labels);
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    let (reply, _) = answer(&table(), &packet.build_bytes_vec().unwrap(), Transport::Udp);
    assert_eq!(Packet::parse(&reply.unwrap()).unwrap().rcode(), RCODE::Refused);
}

#[test]
fn zones_are_not_transferred_and_other_classes_not_answered() {
    for kind in [QTYPE::AXFR, QTYPE::IXFR] {
        assert_eq!(shape(&ask("pqvpn", kind).0), (RCODE::Refused, 0, 0));
    }
    let mut packet = query("phone.home.pqvpn", TYPE::A.into());
    packet.questions[0].qclass = CLASS::CH.into();
    let (reply, _) = answer(&table(), &packet.build_bytes_vec().unwrap(), Transport::Udp);
    assert_eq!(shape(&reply.unwrap()), (RCODE::Refused, 0, 0));
}

#[test]
fn extended_queries_get_extended_answers() {
    let mut packet = query("phone.home.pqvpn", TYPE::A.into());
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 4096, version: 0 });
    let (reply, _) = answer(&table(), &packet.build_bytes_vec().unwrap(), Transport::Udp);
    let reply = reply.unwrap();
    assert_eq!(Packet::parse(&reply).unwrap().opt().map(|opt| opt.udp_packet_size), Some(EDNS_LIMIT));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 4096, version: 1 });
    let (reply, outcome) = answer(&table(), &packet.build_bytes_vec().unwrap(), Transport::Udp);
    assert_eq!((shape(&reply.unwrap()), outcome), ((RCODE::BADVERS, 0, 0), Outcome::Refused));
    assert!(Packet::parse(&ask("phone.home.pqvpn", TYPE::A).0).unwrap().opt().is_none());
}

#[test]
fn what_does_not_fit_says_so() {
    let packet = Packet::parse(&ask("phone.home.pqvpn", TYPE::A).0).unwrap().build_bytes_vec().unwrap();
    let reply = Packet::parse(&packet).unwrap();
    let cut = written(reply, packet.len() - 17).unwrap();
    let cut = Packet::parse(&cut).unwrap();
    assert!(cut.has_flags(PacketFlag::TRUNCATION) && cut.answers.is_empty());
}

#[test]
fn responses_are_never_answered() {
    let mut bytes = query("phone.home.pqvpn", TYPE::A.into()).build_bytes_vec().unwrap();
    bytes[2] |= 0x80;
    assert_eq!(answer(&table(), &bytes, Transport::Udp), (None, Outcome::Dropped));
    for length in 0..HEADER_LEN {
        assert_eq!(answer(&table(), &bytes[..length], Transport::Udp), (None, Outcome::Dropped), "{length}");
    }
}

#[test]
fn everything_but_one_plain_question_is_an_error_no_longer_than_the_query() {
    let good = query("phone.home.pqvpn", TYPE::A.into()).build_bytes_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let (reply, outcome) = answer(&table(), &bytes, Transport::Udp);
        let reply = reply.unwrap();
        assert_eq!((outcome, reply.len()), (Outcome::Refused, HEADER_LEN), "{at} {byte}");
        reply[3] & 15
    };
    let (malformed, not_done) = (RCODE::FormatError as u8, RCODE::NotImplemented as u8);
    assert_eq!(with(2, 0x10), not_done, "a status request");
    assert_eq!(with(2, 0x28), not_done, "an update");
    for (at, byte) in [(4, 0xff), (5, 0), (5, 2), (6, 0xff), (7, 1), (8, 0xff), (9, 1), (10, 0xff), (11, 1), (11, 2)] {
        assert_eq!(with(at, byte), malformed, "{at} {byte}");
    }
    // The first label runs over the end, or points at itself.
    assert_eq!(with(12, 63), malformed);
    assert_eq!(with(12, 0xc0), malformed);
    let long = [good.as_slice(), &vec![0; MAX_QUERY]].concat();
    assert_eq!(answer(&table(), &long, Transport::Tcp).0.map(|reply| reply.len()), Some(HEADER_LEN));
}

#[test]
fn what_else_is_in_a_query_is_not_read() {
    let mut packet = query("phone.home.pqvpn", TYPE::A.into());
    let record = |name| ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 1, RData::A(A { address: 1 }));
    packet.answers.push(record("phone.home.pqvpn"));
    let refused = |packet: &Packet<'_>| {
        let (reply, outcome) = answer(&table(), &packet.build_bytes_vec().unwrap(), Transport::Udp);
        let reply = reply.unwrap();
        (reply.len(), reply[3] & 15, outcome) == (HEADER_LEN, RCODE::FormatError as u8, Outcome::Refused)
    };
    assert!(refused(&packet), "an answer in it");
    packet.name_servers.append(&mut packet.answers);
    assert!(refused(&packet), "an authority in it");
    packet.additional_records.append(&mut packet.name_servers);
    assert!(refused(&packet), "a record beside it");
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 512, version: 0 });
    assert!(refused(&packet), "a record besides OPT");
}

#[test]
fn unknown_kinds_of_records_are_not_answered() {
    let mut bytes = query("phone.home.pqvpn", TYPE::A.into()).build_bytes_vec().unwrap();
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&0xfff0_u16.to_be_bytes());
    let (reply, _) = answer(&table(), &bytes, Transport::Udp);
    assert_eq!(reply.map(|reply| reply[3] & 15), Some(RCODE::NotImplemented as u8));
}

/// What an answer may add to its question: records, an authority, and an OPT record.
const ROOM: usize = 96;

fn is_sound(query: &[u8]) -> Result<(), TestCaseError> {
    for transport in [Transport::Udp, Transport::Tcp] {
        let (reply, _) = answer(&table(), query, transport);
        let Some(reply) = reply else { continue };
        prop_assert!(reply.len() <= query.len() + ROOM, "{} for {}", reply.len(), query.len());
        prop_assert!(transport == Transport::Tcp || reply.len() <= usize::from(EDNS_LIMIT));
        prop_assert_eq!(&reply[..2], &query[..2]);
        prop_assert!(reply[2] & 0x80 != 0 && query[2] & 0x80 == 0);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic_and_never_amplified(query in proptest::collection::vec(any::<u8>(), 0..600)) {
        is_sound(&query)?;
    }

    #[test]
    fn damaged_queries_are_judged_without_panic_and_never_amplified(
        name in "([a-zA-Z0-9-]{1,20}\\.){0,5}(home\\.pqvpn|pqvpn|100\\.10\\.in-addr\\.arpa|ip6\\.arpa|org)",
        kind in 0_u16..300,
        wounds in proptest::collection::vec((0_usize..80, any::<u8>()), 0..4),
        extended: bool,
    ) {
        let mut packet = Packet::new_query(7);
        if extended {
            *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 65535, version: 0 });
        }
        let kind = QTYPE::try_from(kind).unwrap_or(QTYPE::ANY);
        packet.questions.push(Question::new(Name::new(&name).unwrap(), kind, CLASS::IN.into(), false));
        let mut bytes = packet.build_bytes_vec().unwrap();
        is_sound(&bytes)?;
        for (at, byte) in wounds {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        is_sound(&bytes)?;
    }
}
