// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the DHT.

use super::{Figures, size};
use crate::model::{DhtState, DhtStatus};

pub(super) fn tell(figures: &mut Figures, dht: &DhtStatus) {
    figures.gauge("pqvpn_dht_joined", "Whether other nodes answer.", f64::from(dht.state == DhtState::Joined));
    figures.gauge("pqvpn_dht_serving", "Whether this node serves others.", f64::from(dht.serving));
    figures.gauge("pqvpn_dht_contacts", "Contacts in the routing table.", size(dht.contacts));
    if let Some(nodes) = dht.size_estimate {
        figures.gauge("pqvpn_dht_nodes_estimate", "How many nodes the DHT seems to have.", nodes);
    }
    let links = [("outbound", dht.links.outbound), ("inbound", dht.links.inbound), ("dialing", dht.links.dialing)];
    figures.gauges(
        "pqvpn_dht_links",
        "Links in use, by who dialed, and dials under way.",
        links.map(|(state, count)| (vec![("state", state.to_owned())], size(count))),
    );
    let doors = [("known", dht.doors.known), ("working", dht.doors.working)];
    figures.gauges(
        "pqvpn_dht_bootstrap_nodes",
        "Nodes to start from: known, and those of them that work.",
        doors.map(|(state, count)| (vec![("state", state.to_owned())], size(count))),
    );
    figures.gauge("pqvpn_dht_stored_records", "Records kept for others.", size(dht.stored_records));
    figures.gauge("pqvpn_dht_stored_bytes", "Bytes of records kept for others.", size(dht.stored_bytes));
    figures.gauge("pqvpn_dht_lookups_running", "Lookups under way.", size(dht.lookups.running));
    for (name, help, count) in [
        ("pqvpn_dht_lookups_total", "Lookups begun.", dht.lookups.begun),
        ("pqvpn_dht_requests_total", "Requests sent.", dht.rpc.sent),
        ("pqvpn_dht_answers_total", "Requests of ours that were answered.", dht.rpc.answered),
        ("pqvpn_dht_request_failures_total", "Requests of ours that came to nothing.", dht.rpc.failed),
        ("pqvpn_dht_served_requests_total", "Requests of others answered.", dht.rpc.served),
        ("pqvpn_dht_refused_requests_total", "Requests of others refused.", dht.rpc.refused),
        ("pqvpn_dht_transmit_bytes_total", "Bytes of messages sent, without the link's own.", dht.tx_bytes),
        ("pqvpn_dht_receive_bytes_total", "Bytes of messages received, without the link's own.", dht.rx_bytes),
    ] {
        figures.counter(name, help, count);
    }
    figures.counters(
        "pqvpn_dht_rule_hits_total",
        "What a rule of the DHT turned away, by rule.",
        dht.counters.iter().map(|(rule, count)| (vec![("rule", rule.clone())], *count)),
    );
}
