// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few messages of nfnetlink that the wall needs (linux/netfilter/nf_tables.h), as bytes.

use std::net::{IpAddr, Ipv4Addr};

/// `NLM_F_REQUEST`, and with it `NLM_F_ACK`, `NLM_F_CREATE`, `NLM_F_APPEND`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`, by which batches are named and which the types of its messages begin with.
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const DEL_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;
/// `NFT_REG_1`, the only register used; `NFT_REG_VERDICT` is 0.
const REGISTER: u32 = 1;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFT_META_IIF` and `NFT_META_NFPROTO`.
const META_IIF: u32 = 4;
const META_NFPROTO: u32 = 15;
/// `NFT_CMP_EQ` and `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
/// The index of `lo`, in every namespace.
const LOOPBACK: u32 = 1;

const CHAIN: &str = "in";

/// The families of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4 and IPv6: `NFPROTO_INET`.
    Inet = 1,
    /// `NFPROTO_ARP`.
    Arp = 3,
}

/// Messages that the kernel carries out all together, or none.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Messages that ask for an answer.
    asked: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), asked: 0 };
        batch.message(BATCH_BEGIN, 0, 0, NFTABLES, &[]);
        batch
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn asked(&self) -> usize {
        self.asked
    }

    pub(super) fn end(mut self) -> Self {
        self.message(BATCH_END, 0, 0, NFTABLES, &[]);
        self
    }

    pub(super) fn delete_table(self, family: Family, table: &str) -> Self {
        self.ask(DEL_TABLE, 0, family, &text(1, table))
    }

    /// A table with one chain, where packets of its family come in: before connections are told apart.
    pub(super) fn table(self, family: Family, table: &str, owned: bool) -> Self {
        let flags = if owned { number(2, OWNER) } else { Vec::new() };
        let batch = self.ask(NEW_TABLE, CREATE, family, &[text(1, table), flags].concat());
        // `NF_INET_PRE_ROUTING` and `NF_ARP_IN` are both 0; raw is -300.
        let priority = if family == Family::Inet { -300_i32 } else { 0 };
        let hook = nest(4, &[number(1, 0), attribute(2, &priority.to_be_bytes())].concat());
        let chain = [text(1, table), text(3, CHAIN), hook, text(7, "filter")].concat();
        batch.ask(NEW_CHAIN, CREATE, family, &chain)
    }

    /// What comes to an address, and neither by interface `index` nor from this host itself, is dropped.
    pub(super) fn drop_packets(self, table: &str, index: u32, to: IpAddr) -> Self {
        // `NFPROTO_IPV4` and `NFPROTO_IPV6`; where the destination stands in the header.
        let (protocol, at, bytes) = match to {
            IpAddr::V4(to) => (2_u8, 16, to.octets().to_vec()),
            IpAddr::V6(to) => (10, 24, to.octets().to_vec()),
        };
        // The destination first: it is somebody else's for nearly all packets, and this is asked for each.
        let mut rule = [meta(META_NFPROTO), compare(EQUAL, &[protocol])].concat();
        rule.extend(header(at, &bytes));
        for interface in [index, LOOPBACK] {
            rule.extend([meta(META_IIF), compare(DIFFERENT, &interface.to_ne_bytes())].concat());
        }
        self.drop_matching(Family::Inet, table, &rule)
    }

    /// ARP that is about an address is dropped: the target's stands 24 bytes into it.
    pub(super) fn drop_arp(self, table: &str, about: Ipv4Addr) -> Self {
        self.drop_matching(Family::Arp, table, &header(24, &about.octets()))
    }

    fn drop_matching(self, family: Family, table: &str, matching: &[u8]) -> Self {
        // Into the verdict register, the verdict `NF_DROP`.
        let verdict = nest(2, &nest(2, &number(1, 0)));
        let drop = expression("immediate", &[number(1, 0), verdict].concat());
        let expressions = nest(4, &[matching, &drop].concat());
        self.ask(NEW_RULE, CREATE | APPEND, family, &[text(1, table), text(2, CHAIN), expressions].concat())
    }

    fn ask(mut self, kind: u16, flags: u16, family: Family, attributes: &[u8]) -> Self {
        self.asked += 1;
        self.message(kind, ACK | flags, family as u8, 0, attributes);
        self
    }

    /// `struct nlmsghdr`, `struct nfgenmsg` and attributes.
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        // Neither sequence numbers nor a port are needed: answers come in order, from the kernel.
        self.bytes.extend([0; 8]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }
}

/// What the kernel answered to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0, or the number of an error.
    pub(super) code: i32,
    /// It is about the whole batch, and no other follows.
    pub(super) is_last: bool,
}

/// The answers in what came from the kernel: `struct nlmsghdr`, the code, and the header of what was asked.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let (Some(length), Some(kind)) = (bytes.first_chunk::<4>(), bytes.get(4..6)) {
        let length = u32::from_ne_bytes(*length) as usize;
        let code = bytes.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
        let is_last = bytes.get(24..26) == Some(&BATCH_BEGIN.to_ne_bytes());
        if kind == NLMSG_ERROR.to_ne_bytes().as_slice() {
            answers.extend(code.map(|code| Answer { code: code.saturating_neg(), is_last }));
        }
        bytes = bytes.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    answers
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, payload: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, payload)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nest(1, &[text(1, name), nest(2, data)].concat())
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)].concat())
}

fn compare(how: u32, value: &[u8]) -> Vec<u8> {
    let value = nest(3, &attribute(1, value));
    expression("cmp", &[number(1, REGISTER), number(2, how), value].concat())
}

/// The network header has these bytes at an offset.
fn header(at: u32, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    let load = [number(1, REGISTER), number(2, NETWORK_HEADER), number(3, at), number(4, length)].concat();
    [expression("payload", &load), compare(EQUAL, bytes)].concat()
}
