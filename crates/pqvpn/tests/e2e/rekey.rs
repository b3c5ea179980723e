// SPDX-License-Identifier: MIT OR Apache-2.0
//! A minute of traffic under forced ratchet steps and hash phases: no connection and no packet is lost to them.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use pqvpn_lab::process::Daemon;
use serde_json::Value;

use crate::{
    proc::{UdpCounters, queue_drops},
    rig::{LIMIT, Node, Outer, Pair, TUN, has, usable},
    traffic::{Numbered, Tally},
};

/// How long iperf3 runs (the issue asks for a minute).
const RUN: Duration = Duration::from_secs(60);
/// Forced steps, one every [`EVERY`]; the rest of the run is for a hash phase, which comes after 15 s in one epoch.
const STEPS: u32 = 24;
/// Time between two forced steps; the machine itself allows one a second.
const EVERY: Duration = Duration::from_millis(1700);
/// Reasons a packet would be dropped for if a key were missing or wrong, or a session or the interface not there.
const KEY_DROPS: [&str; 11] = [
    "auth",
    "replay",
    "too_old",
    "unknown_epoch",
    "phase_jump",
    "rate_limited",
    "no_session",
    "seal_refused",
    "forgery_limit",
    "parked_overflow",
    "tun_error",
];

#[test]
fn a_minute_of_traffic_survives_forced_rekeys_without_loss() {
    if !usable() || !has("iperf3") {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let server =
        Daemon::spawn(&b.namespace, "iperf3 server", iperf(&["-s", "-1", "--forceflush", "-B", &b.v4.to_string()]))
            .unwrap();
    server.wait_for_line("Server listening", LIMIT).unwrap();
    let seconds = RUN.as_secs().to_string();
    // Paced below what the machine can do, so that full queues do not hide what is looked for here.
    let client = iperf(&["-c", &b.v4.to_string(), "-t", &seconds, "-b", "200M", "--json"]);
    let start = Instant::now();
    let client = Daemon::spawn(&a.namespace, "iperf3 client", client).unwrap();
    let numbered = Numbered::start(&a.namespace, &b.namespace, b.v4.into(), Duration::from_millis(1), 300);

    let mut slowest = Duration::ZERO;
    for step in 1..=STEPS {
        let due = start + EVERY * step;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        // Either end may ask; the machine finds out whose turn it is.
        let (asking, other) = if step % 3 == 0 { (b, a) } else { (a, b) };
        asking.rekey(other).unwrap();
        for (node, peer) in pair.both() {
            node.wait("the next epoch", || (node.epoch(peer)? >= step).then_some(()));
        }
        slowest = slowest.max(asked.elapsed());
    }
    let phase = |node: &Node, peer: &Node| node.peer(peer).session.map(|session| session.phase);
    for (node, peer) in pair.both() {
        node.wait("a hash phase", || (phase(node, peer)? >= 1).then_some(()));
    }
    let finished = client.wait(RUN + LIMIT).unwrap();
    assert!(finished.status.success(), "iperf3: {}{}", finished.stdout, finished.stderr);
    let tally = numbered.finish();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    check_iperf(&report);
    eprintln!("FIGURE slowest_step_ms={:.0} of {STEPS} forced steps", slowest.as_secs_f64() * 1000.0);
    for (node, peer) in pair.both() {
        let session = node.peer(peer).session.unwrap();
        assert!((STEPS..STEPS + 2).contains(&session.epoch), "epoch {} at {}", session.epoch, node.name);
        assert_eq!(node.sessions_made(), 1, "the session was replaced at {}", node.name);
        eprintln!("FIGURE {} epoch={} phase={}", node.name, session.epoch, session.phase);
        for reason in KEY_DROPS {
            assert_eq!(node.dropped(reason), 0, "{reason} at {}", node.name);
        }
    }
    check_numbers(&pair, &tally);
}

fn iperf(arguments: &[&str]) -> Command {
    let mut command = Command::new("iperf3");
    command.args(arguments);
    command
}

fn check_iperf(report: &Value) {
    let end = &report["end"];
    let sent = end["sum_sent"]["bytes"].as_u64().unwrap();
    let rate = end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6;
    let seconds = end["sum_received"]["seconds"].as_f64().unwrap();
    let retransmits = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
    eprintln!("FIGURE iperf3 seconds={seconds:.1} mbit_s={rate:.0} retransmits={retransmits} (paced to 200)");
    assert!(report["error"].is_null(), "{report}");
    assert!(sent > 0 && seconds >= RUN.as_secs_f64() - 1.0, "iperf3 ended after {seconds} s");
}

/// Every lost number must be accounted for by a full buffer outside the tunnel's keys.
fn check_numbers(pair: &Pair, tally: &Tally) {
    let lost = tally.lost_there() + tally.lost_back();
    let buffers: u64 = [&pair.a, &pair.b]
        .map(|node| {
            let counters = UdpCounters::of(&node.namespace);
            let tun = queue_drops(&node.namespace, TUN);
            let refused = node.dropped("send_error");
            eprintln!(
                "{}: socket overflows {} in, {} out; TUN queue drops {tun}; send_error {refused}",
                node.name, counters.receive_overflows, counters.send_overflows
            );
            counters.receive_overflows + tun + refused
        })
        .iter()
        .sum();
    eprintln!(
        "FIGURE numbered sent={} lost_there={} lost_back={} duplicates={} longest_gap_ms={:.1} buffer_drops={buffers}",
        tally.sent,
        tally.lost_there(),
        tally.lost_back(),
        tally.far.duplicates + tally.near.duplicates,
        tally.near.longest_gap.as_secs_f64() * 1000.0
    );
    assert_eq!(tally.far.duplicates + tally.near.duplicates, 0);
    assert!(tally.sent > 10_000, "only {} numbers were sent", tally.sent);
    let gaps = (tally.far.missing(tally.sent), tally.near.missing(tally.sent));
    assert!(lost <= buffers, "{lost} numbers lost, {buffers} explained by full buffers: {gaps:?}");
}
