// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps the node's reports on its network to the JSON model.

use pqvpn_node::{membership, netcheck};

use super::{Finding, NetCheck, Outside, PortMapping, Relay, RelayedPair, RelayedTotal, Relaying, Visitors};
use crate::SCHEMA;

impl From<netcheck::MappingReport> for PortMapping {
    fn from(mapping: netcheck::MappingReport) -> Self {
        Self {
            state: mapping.state.name().to_owned(),
            router: mapping.router,
            protocol: mapping.protocol.map(|protocol| protocol.name().to_owned()),
            external: mapping.external,
            public: mapping.public,
            lifetime_s: mapping.lifetime.map(|lifetime| lifetime.as_secs()),
            age_s: mapping.age.map(|age| age.as_secs()),
            lies: mapping.lies,
            why: mapping.why,
        }
    }
}

impl From<netcheck::NetReport> for NetCheck {
    fn from(report: netcheck::NetReport) -> Self {
        let facts = report.facts;
        Self {
            schema: SCHEMA,
            udp: report.udp.into(),
            tcp443: Some(report.tcp443.into()),
            outside: facts.outside.into_iter().map(Outside::from).collect(),
            nat: report.nat.into(),
            filtering: report.filtering.into(),
            port_mapping: facts.mapping.into(),
            ipv6: report.ipv6.into(),
            interfaces: facts.interfaces,
            mtu: report.mtu.into(),
            inner_mtu: facts.mtu,
            relays: facts.links.into_iter().filter_map(relay).collect(),
            hints: report.hints,
        }
    }
}

impl From<netcheck::Finding> for Finding {
    fn from(finding: netcheck::Finding) -> Self {
        let age_s = finding.age.map(|age| age.as_secs());
        Self { value: finding.value.to_owned(), learnt: finding.learnt, age_s }
    }
}

impl From<netcheck::Outside> for Outside {
    fn from(outside: netcheck::Outside) -> Self {
        Self { address: outside.address, seen_by: outside.seen_by, age_s: outside.age.as_secs() }
    }
}

/// A linked member as a relay; one that is reached through another is none.
fn relay(link: netcheck::MemberLink) -> Option<Relay> {
    Some(Relay {
        peer_id: link.peer.to_string(),
        name: link.name,
        address: link.at?,
        rtt_ms: (link.rtt.as_secs_f64() * 10_000.0).round() / 10.0,
        age_s: link.idle.as_secs(),
        bulk: link.forwards.map(|(rate, _)| rate > 0),
    })
}

impl From<membership::RelayReport> for Relaying {
    fn from(report: membership::RelayReport) -> Self {
        let pairs = report.pairs.into_iter().map(RelayedPair::from).collect();
        let limit_bits = report.rate.saturating_mul(8);
        let listen = report.listen.iter().map(ToString::to_string).collect();
        let [refused, broken, strangers] = report.visitors;
        let visitors = Visitors { refused, broken, strangers };
        let (enabled, refused) = (report.rate > 0, report.refused);
        let membership::RelayTotal { packets, bytes, dropped } = report.total;
        let total = RelayedTotal { packets, bytes, dropped };
        Self { schema: SCHEMA, enabled, limit_bits, pairs, total, listen, visitors, refused }
    }
}

impl From<membership::RelayPairReport> for RelayedPair {
    fn from(pair: membership::RelayPairReport) -> Self {
        let peer_ids = pair.ends.each_ref().map(|(peer, _)| peer.to_string());
        let names = pair.ends.map(|(_, name)| name);
        Self { network: pair.network, peer_ids, names, packets: pair.packets, bytes: pair.bytes, dropped: pair.dropped }
    }
}
