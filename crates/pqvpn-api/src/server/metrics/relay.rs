// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of what is forwarded for others; who they are is nobody's business here.

use super::{Figures, number, size};
use crate::model::Relaying;

pub(super) fn tell(figures: &mut Figures, relay: &Relaying) {
    figures.gauge("pqvpn_relay_enabled", "Whether traffic of other members is forwarded.", f64::from(relay.enabled));
    figures.gauge(
        "pqvpn_relay_limit_bytes_per_second",
        "Most that is forwarded, all together; 0 while only introductions are.",
        number(relay.limit_bits / 8),
    );
    figures.gauge("pqvpn_relay_pairs", "Pairs of members that meet here.", size(relay.pairs.len()));
    for (name, help, count) in [
        ("pqvpn_relay_forwarded_bytes_total", "Bytes forwarded.", relay.total.bytes),
        ("pqvpn_relay_forwarded_packets_total", "Datagrams forwarded.", relay.total.packets),
        ("pqvpn_relay_dropped_packets_total", "Datagrams dropped by the limit.", relay.total.dropped),
        ("pqvpn_relay_refused_requests_total", "Requests refused: too many at once.", relay.refused),
    ] {
        figures.counter(name, help, count);
    }
    let visitors = &relay.visitors;
    let by = [("refused", visitors.refused), ("broken", visitors.broken), ("stranger", visitors.strangers)];
    figures.counters(
        "pqvpn_relay_visitors_total",
        "Connections to the carriers that carry nothing, by what became of them.",
        by.map(|(result, count)| (vec![("result", result.to_owned())], count)),
    );
}
