// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab bench`: speed of the tunnel beside the bare link and other tunnels, in the same run and interleaved.

use std::io::{self, Write};

use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{self, Host};
use serde_json::Value;

use self::contender::Contender;
use self::figures::Series;

mod contender;
mod echo;
mod figures;
pub(super) mod iperf;
mod ours;
pub(super) mod tools;
mod wireguard;

/// Least TCP throughput of one stream with AES-256-GCM, as a multiple of boringtun's.
const RATIO_BAR: f64 = 5.0;
/// Most a round trip through the idle tunnel may add to one over the bare link, in milliseconds.
const IDLE_RTT_BAR: f64 = 0.2;
/// Name of the contender the ratio is about.
const RIVAL: &str = "boringtun";

/// How long and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each transfer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Rounds; in each one every tunnel has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// One round of one-second transfers: whether it works, not how fast.
    #[arg(long, conflicts_with_all = ["seconds", "repeat"])]
    quick: bool,
    /// Leave out every contender whose name does not contain one of these (comma-separated); the bars stay.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
}

/// What one contender showed, a value a round.
#[derive(Debug)]
struct Scores {
    contender: Contender,
    tcp1: Series,
    tcp4: Series,
    /// Of the single streams.
    retransmits: Series,
    cpu_s_per_gb: Series,
    handshake_ms: Series,
    rss_mb: Series,
    rtt: echo::Samples,
    /// Round trips over the bare link between those through the tunnel.
    raw_rtt: echo::Samples,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let (seconds, repeat, pings) = if args.quick { (1, 1, 100) } else { (args.seconds, args.repeat, 300) };
    tools::need_iperf3()?;
    let (one, two) = topology::pair("one", "two")?;
    let wanted = |contender: &Contender| args.only.is_empty() || args.only.iter().any(|o| contender.name().contains(o));
    let contenders = Contender::all(&wanted)?;
    let mut scores: Vec<Scores> = contenders.into_iter().map(Scores::of).collect();
    for round in 1..=repeat {
        for score in &mut scores {
            // Progress is for people who wait; a closed standard error changes nothing.
            _ = writeln!(io::stderr(), "round {round}/{repeat}: {}", score.contender.name());
            score.measure(&one, &two, seconds, pings)?;
        }
    }
    Ok(report(&scores, seconds, repeat))
}

impl Scores {
    fn of(contender: Contender) -> Self {
        Self {
            contender,
            tcp1: Series::default(),
            tcp4: Series::default(),
            retransmits: Series::default(),
            cpu_s_per_gb: Series::default(),
            handshake_ms: Series::default(),
            rss_mb: Series::default(),
            rtt: echo::Samples::default(),
            raw_rtt: echo::Samples::default(),
        }
    }

    /// One turn: start, idle round trips, transfers, stop.
    fn measure(&mut self, one: &Host, two: &Host, seconds: u32, pings: u32) -> anyhow::Result<()> {
        let running = self.contender.start(one, two)?;
        let (tunnel, bare) = (running.target(), two.ipv4.into());
        let [through, beside] = echo::round_trips(one, two, [tunnel, bare], pings)?;
        self.rtt.extend(through);
        self.raw_rtt.extend(beside);
        let before = running.cpu()?;
        let single = iperf::tcp(one, two, tunnel, seconds, 1)?;
        self.cpu_s_per_gb.push_some(
            running
                .cpu()?
                .zip(before)
                .map(|(after, before)| (after.saturating_sub(before)).as_secs_f64() / single.gigabytes),
        );
        self.tcp1.push(single.gbit_s);
        self.retransmits.push(single.retransmits);
        self.tcp4.push(iperf::tcp(one, two, tunnel, seconds, 4)?.gbit_s);
        self.rss_mb.push_some(running.peak_rss_mb()?);
        self.handshake_ms.push_some(running.handshake_ms());
        running.stop()
    }
}

fn report(scores: &[Scores], seconds: u32, repeat: u32) -> Report {
    let mut report = Report::new("bench");
    report.figure("seconds", seconds);
    report.figure("rounds", repeat);
    for score in scores {
        report.row([
            ("tunnel", score.contender.name().into()),
            ("aead", score.contender.aead().into()),
            ("tcp1_gbit_s", score.tcp1.median()),
            ("tcp1_range", score.tcp1.range()),
            ("tcp4_gbit_s", score.tcp4.median()),
            ("tcp4_range", score.tcp4.range()),
            ("tcp1_retransmits", score.retransmits.median()),
            ("cpu_s_per_gb", score.cpu_s_per_gb.median()),
            ("idle_rtt_p50_ms", score.rtt.percentile(50)),
            ("idle_rtt_p99_ms", score.rtt.percentile(99)),
            ("raw_rtt_p50_ms", score.raw_rtt.percentile(50)),
            ("handshake_ms", score.handshake_ms.median()),
            ("rss_mb", score.rss_mb.median()),
        ]);
    }
    let find = |name: &str| scores.iter().find(|score| score.contender.name() == name);
    let rival = find(RIVAL);
    for (name, key) in [(ours::AES, "aes_256_gcm"), (ours::CHACHA, "chacha20_poly1305")] {
        let Some(ours) = find(name) else { continue };
        report.figure(&format!("tcp1_{key}_gbit_s"), ours.tcp1.median());
        report.figure(&format!("tcp4_{key}_gbit_s"), ours.tcp4.median());
        report.figure(&format!("cpu_s_per_gb_{key}"), ours.cpu_s_per_gb.median());
        report.figure(&format!("idle_rtt_p50_{key}_ms"), ours.rtt.percentile(50));
        report.figure(&format!("idle_rtt_p99_{key}_ms"), ours.rtt.percentile(99));
        report.figure(&format!("idle_rtt_added_{key}_ms"), added(ours));
        report.figure(&format!("handshake_{key}_ms"), ours.handshake_ms.median());
        report.figure(&format!("rss_{key}_mb"), ours.rss_mb.median());
        if let Some(rival) = rival {
            // Pair by pair: what the machine did meanwhile hit both turns of a round.
            report.figure(&format!("tcp1_{key}_to_{RIVAL}"), ours.tcp1.ratio(&rival.tcp1).median());
            report.figure(&format!("tcp1_{key}_to_{RIVAL}_range"), ours.tcp1.ratio(&rival.tcp1).range());
            report.figure(&format!("tcp4_{key}_to_{RIVAL}"), ours.tcp4.ratio(&rival.tcp4).median());
        }
        if let Some(raw) = find(contender::RAW) {
            report.figure(&format!("tcp1_{key}_to_raw"), ours.tcp1.ratio(&raw.tcp1).median());
        }
    }
    report.bar(&format!("tcp1_aes_256_gcm_to_{RIVAL}"), Op::AtLeast, RATIO_BAR);
    report.bar("idle_rtt_added_aes_256_gcm_ms", Op::AtMost, IDLE_RTT_BAR);
    report.bar("idle_rtt_added_chacha20_poly1305_ms", Op::AtMost, IDLE_RTT_BAR);
    report
}

/// What the tunnel adds to the median round trip.
fn added(score: &Scores) -> Value {
    let medians = score.rtt.percentile(50).as_f64().zip(score.raw_rtt.percentile(50).as_f64());
    medians.map_or(Value::Null, |(tunnel, bare)| figures::rounded(tunnel - bare))
}
