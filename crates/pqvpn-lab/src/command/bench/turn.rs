// SPDX-License-Identifier: MIT OR Apache-2.0
//! One turn of one contender: start, idle round trips, transfers, stop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::topology::Host;

use super::contender::{Contender, Running};
use super::{echo, iperf};

/// Rates of datagrams in Mbit/s of payload.
pub(super) const RATES: [u32; 3] = [500, 1000, 2000];
/// Bytes of payload of a datagram.
const DATAGRAM: u32 = 1200;

/// What a turn measured, by name; the names are those of the report.
pub(super) type Values = BTreeMap<String, f64>;

/// How much a turn does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Seconds of each transfer.
    pub(super) seconds: u32,
    /// Idle round trips.
    pub(super) pings: u32,
}

/// Lets a contender have its turn. What was measured before something failed stays in `values`.
pub(super) fn take(
    contender: &dyn Contender,
    hosts: (&Host, &Host),
    extent: Extent,
    values: &mut Values,
) -> anyhow::Result<()> {
    let (one, two) = hosts;
    let running = contender.start(one, two)?;
    echo::first(one, running.target()).context("no packet passes")?;
    let turn = Turn { one, two, target: running.target(), running: running.as_ref(), extent };
    turn.idle(values)?;
    turn.streams(values)?;
    turn.datagrams(values)?;
    let more = [("rss_mb", running.peak_rss_mb()?), ("handshake_ms", running.handshake_ms())];
    values.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    running.stop()
}

struct Turn<'t> {
    one: &'t Host,
    two: &'t Host,
    target: IpAddr,
    running: &'t dyn Running,
    extent: Extent,
}

impl Turn<'_> {
    fn course(&self) -> iperf::Course<'_> {
        iperf::Course { one: self.one, two: self.two, target: self.target, seconds: self.extent.seconds }
    }

    /// Round trips through the idle tunnel, by turns with those over the bare link.
    fn idle(&self, values: &mut Values) -> anyhow::Result<()> {
        let bare = IpAddr::from(self.two.ipv4);
        let [through, beside] = echo::idle(self.one, [self.target, bare], self.extent.pings)?;
        let added = through.percentile(50).zip(beside.percentile(50)).map(|(tunnel, bare)| tunnel - bare);
        let added = added.filter(|_| self.target != bare);
        round_trips(values, "idle", &through);
        values.extend(added.map(|added| ("idle_rtt_added_ms".to_owned(), added)));
        Ok(())
    }

    /// TCP both ways. Round trips are measured beside the first single stream.
    fn streams(&self, values: &mut Values) -> anyhow::Result<()> {
        let course = self.course();
        let before = self.running.cpu()?;
        // The stream has started when its connection is there; its last moments are left out.
        let beside = |span: Duration| echo::loaded(self.one, self.target, span.mul_f64(0.9));
        let (single, loaded) = course.tcp_beside(beside)?;
        if let Some(cost) = self.cost(before, single.gigabytes)? {
            values.insert("tcp_cpu_s_per_gb".to_owned(), cost);
        }
        round_trips(values, "loaded", &loaded);
        values.insert("loaded_ping_lost_percent".to_owned(), loaded.lost_percent());
        values.insert("tcp1_gbit_s".to_owned(), single.gbit_s);
        values.insert("tcp1_retransmits".to_owned(), single.retransmits);
        values.insert("tcp1_reverse_gbit_s".to_owned(), course.tcp(1, true)?.gbit_s);
        values.insert("tcp4_gbit_s".to_owned(), course.tcp(4, false)?.gbit_s);
        values.insert("tcp4_reverse_gbit_s".to_owned(), course.tcp(4, true)?.gbit_s);
        Ok(())
    }

    fn datagrams(&self, values: &mut Values) -> anyhow::Result<()> {
        for rate in RATES {
            let before = self.running.cpu()?;
            let arrived = self.course().udp(DATAGRAM, rate * 1000)?;
            if let Some(cost) = self.cost(before, arrived.gigabytes)? {
                values.insert(format!("udp{rate}_cpu_s_per_gb"), cost);
            }
            values.insert(format!("udp{rate}_lost_percent"), arrived.lost_percent);
            values.insert(format!("udp{rate}_mbit_s"), arrived.mbit_s);
        }
        Ok(())
    }

    /// CPU seconds of both ends since `before`, by what arrived.
    fn cost(&self, before: Option<Duration>, gigabytes: f64) -> anyhow::Result<Option<f64>> {
        let spent = self.running.cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(spent.filter(|_| gigabytes > 0.0).map(|spent| spent.as_secs_f64() / gigabytes))
    }
}

fn round_trips(values: &mut Values, when: &str, samples: &echo::Samples) {
    let figures = [
        ("avg", samples.mean()),
        ("p50", samples.percentile(50)),
        ("p99", samples.percentile(99)),
        ("max", samples.percentile(100)),
    ];
    values.extend(figures.into_iter().filter_map(|(name, value)| Some((format!("{when}_rtt_{name}_ms"), value?))));
}
