// SPDX-License-Identifier: MIT OR Apache-2.0
//! One query, one answer (RFC 1034, RFC 1035, RFC 2308, RFC 6891). Pure.

use std::net::IpAddr;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, NS, OPT, PTR, RData, SOA},
};

use super::{
    ZONE,
    table::{Found, NameTable},
};

/// Longest query looked at, in bytes.
pub(super) const MAX_QUERY: usize = 4096;
/// Longest answer over UDP, in bytes, to whoever does not say more (RFC 1035 §2.3.4).
const UDP_LIMIT: usize = 512;
/// Longest answer over UDP at all: no fragments (DNS flag day 2020).
const EDNS_LIMIT: u16 = 1232;
/// Length of the header in bytes.
const HEADER_LEN: usize = 12;
/// How long an answer may be kept, in s: who is a member changes while people wait.
const TTL: u32 = 10;
/// How long the lack of an answer may be kept, in s.
const NEGATIVE_TTL: u32 = 5;

/// How a query ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Negative,
    Refused,
    Dropped,
}

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Answers a query; `None`: it deserves none. No answer is much longer than its question.
pub(super) fn answer(table: &NameTable, query: &[u8], transport: Transport) -> (Option<Vec<u8>>, Outcome) {
    // The counts are looked at before the library sees them: it makes room for as many records as they say.
    let Some(header) = Header::read(query).filter(|header| !header.is_response) else {
        return (None, Outcome::Dropped);
    };
    if header.opcode != 0 {
        return (Some(header.error(RCODE::NotImplemented)), Outcome::Refused);
    }
    if query.len() > MAX_QUERY || !header.is_plain_query() {
        return (Some(header.error(RCODE::FormatError)), Outcome::Refused);
    }
    let asked = match Packet::parse(query) {
        Ok(asked) => asked,
        Err(simple_dns::SimpleDnsError::InvalidQType(_)) => {
            return (Some(header.error(RCODE::NotImplemented)), Outcome::Refused);
        }
        Err(_) => return (Some(header.error(RCODE::FormatError)), Outcome::Refused),
    };
    let [question] = asked.questions.as_slice() else {
        return (Some(header.error(RCODE::FormatError)), Outcome::Refused);
    };
    let extended = asked.opt();
    if extended.is_none() && header.additional > 0 {
        return (Some(header.error(RCODE::FormatError)), Outcome::Refused);
    }
    let mut reply = Packet::new_reply(asked.id());
    reply.questions.push(question.clone());
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.opt_mut() = extended.map(|_| OPT { opt_codes: Vec::new(), udp_packet_size: EDNS_LIMIT, version: 0 });
    let labels = labels_of(&question.qname);
    let outcome = if extended.is_some_and(|opt| opt.version != 0) {
        *reply.rcode_mut() = RCODE::BADVERS;
        Outcome::Refused
    } else {
        fill(&mut reply, table, question, labels.as_deref())
    };
    let limit = match (transport, extended) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => UDP_LIMIT,
        (Transport::Udp, Some(opt)) => usize::from(opt.udp_packet_size.min(EDNS_LIMIT)).max(UDP_LIMIT),
    };
    match written(reply, limit) {
        Some(bytes) => (Some(bytes), outcome),
        None => (Some(header.error(RCODE::ServerFailure)), Outcome::Refused),
    }
}

/// Answers any bytes, over both transports.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        if let (Some(reply), _) = answer(&NameTable::default(), data, transport) {
            assert_eq!(reply[..2], data[..2], "the answer is to this question");
            assert!(transport == Transport::Tcp || reply.len() <= usize::from(EDNS_LIMIT));
            assert_eq!(answer(&NameTable::default(), &reply, transport).0, None, "an answer is not answered");
        }
    }
}

/// Puts what is known into the reply.
fn fill(reply: &mut Packet<'_>, table: &NameTable, question: &Question<'_>, labels: Option<&[String]>) -> Outcome {
    let class = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    // Whole zones are not given away.
    let kind = !matches!(question.qtype, QTYPE::AXFR | QTYPE::IXFR);
    let found = match labels {
        Some(labels) if class && kind => table.look_up(&labels.iter().map(String::as_str).collect::<Vec<_>>()),
        _ => Found::Foreign,
    };
    if found == Found::Foreign {
        *reply.rcode_mut() = RCODE::Refused;
        return Outcome::Refused;
    }
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    if found == Found::Nothing {
        *reply.rcode_mut() = RCODE::NameError;
    }
    let data = records(&found, question.qtype);
    let negative = data.is_empty();
    let name = question.qname.clone().into_owned();
    reply.answers = data.into_iter().map(|data| ResourceRecord::new(name.clone(), CLASS::IN, TTL, data)).collect();
    if negative {
        let zone = labels.map(zone_of).unwrap_or_default();
        let name = Name::new(&zone).map(Name::into_owned);
        reply
            .name_servers
            .extend(name.ok().map(|name| ResourceRecord::new(name, CLASS::IN, NEGATIVE_TTL, RData::SOA(authority()))));
        return Outcome::Negative;
    }
    Outcome::Answered
}

fn records(found: &Found<'_>, kind: QTYPE) -> Vec<RData<'static>> {
    let any = kind == QTYPE::ANY;
    let wanted = |asked: TYPE| any || kind == QTYPE::TYPE(asked);
    match found {
        Found::Host(addresses) => addresses
            .iter()
            .filter(|address| wanted(if address.is_ipv4() { TYPE::A } else { TYPE::AAAA }))
            .map(|address| match address {
                IpAddr::V4(ip) => RData::A(A { address: u32::from(*ip) }),
                IpAddr::V6(ip) => RData::AAAA(AAAA { address: u128::from(*ip) }),
            })
            .collect(),
        Found::Pointer(name) if wanted(TYPE::PTR) => {
            Name::new(name).map(|name| RData::PTR(PTR(name.into_owned()))).into_iter().collect()
        }
        Found::Apex if wanted(TYPE::SOA) => vec![RData::SOA(authority())],
        Found::Apex if wanted(TYPE::NS) => vec![RData::NS(NS(Name::new_unchecked(ZONE)))],
        Found::Apex | Found::Pointer(_) | Found::Empty | Found::Nothing | Found::Foreign => Vec::new(),
    }
}

/// The zone's own record: it is nobody's but this node's, and changes without a number.
fn authority() -> SOA<'static> {
    let name = Name::new_unchecked(ZONE);
    SOA { mname: name.clone(), rname: name, serial: 1, refresh: 60, retry: 60, expire: 60, minimum: NEGATIVE_TTL }
}

/// The zone a name of ours is in: ours, or what is above a whole address.
fn zone_of(labels: &[String]) -> String {
    match labels {
        [.., last] if last == ZONE => ZONE.to_owned(),
        [.., kind, _] => format!("{kind}.arpa"),
        _ => ZONE.to_owned(),
    }
}

/// The labels in lower case; none if one is no plain text, or holds a dot: such a name is nobody's.
fn labels_of(name: &Name<'_>) -> Option<Vec<String>> {
    let label = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).ok()?;
        (!text.contains('.')).then(|| text.to_ascii_lowercase())
    };
    name.as_bytes().map(label).collect()
}

/// The reply's bytes; one that does not fit says so and holds nothing.
fn written(mut reply: Packet<'_>, limit: usize) -> Option<Vec<u8>> {
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.set_flags(PacketFlag::TRUNCATION);
    reply.answers.clear();
    reply.name_servers.clear();
    reply.build_bytes_vec_compressed().ok().filter(|bytes| bytes.len() <= limit)
}

/// What of a query's header decides whether it is read at all.
struct Header {
    id: [u8; 2],
    is_response: bool,
    opcode: u8,
    recursion_desired: bool,
    questions: u16,
    answers: u16,
    authorities: u16,
    additional: u16,
}

impl Header {
    fn read(query: &[u8]) -> Option<Self> {
        let [a, b, high, _, q0, q1, a0, a1, n0, n1, r0, r1] = *query.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            id: [a, b],
            is_response: high & 0x80 != 0,
            opcode: high >> 3 & 0x0f,
            recursion_desired: high & 1 != 0,
            questions: u16::from_be_bytes([q0, q1]),
            answers: u16::from_be_bytes([a0, a1]),
            authorities: u16::from_be_bytes([n0, n1]),
            additional: u16::from_be_bytes([r0, r1]),
        })
    }

    /// One question and nothing else but perhaps an OPT record.
    const fn is_plain_query(&self) -> bool {
        self.questions == 1 && self.answers == 0 && self.authorities == 0 && self.additional <= 1
    }

    /// A header alone: never longer than what it answers.
    fn error(&self, code: RCODE) -> Vec<u8> {
        let code = u8::try_from(code as u16).unwrap_or(RCODE::ServerFailure as u8);
        let flags = [0x80 | self.opcode << 3 | u8::from(self.recursion_desired), code & 0x0f];
        [self.id.as_slice(), &flags, &[0; 8]].concat()
    }
}

/// An opcode the library knows; the rest of the module does without it.
const _: () = assert!(OPCODE::StandardQuery as u16 == 0, "queries are opcode 0");

#[cfg(test)]
mod tests;
