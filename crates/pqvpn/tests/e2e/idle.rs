// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon with ten idle peers costs next to nothing: packets on the wire, CPU time, memory.

use std::{
    thread,
    time::{Duration, Instant},
};

use pqvpn_api::model::PeerState;
use pqvpn_lab::topology::lan;

use crate::{
    proc::UdpCounters,
    rig::{Node, Outer, binary, tail, usable},
    traffic::echo_sizes,
};

const PEERS: usize = 10;
/// From the last data to the beginning of the measurement: the last refresh of a used session is over (life.rs).
const SETTLE: Duration = Duration::from_secs(35);
/// Length of the measurement.
const WINDOW: Duration = Duration::from_secs(60);
/// The bars. RSS and CPU are those of a release build; any build stays within twice that.
const PACKETS_PER_MINUTE: u64 = 1;
const CPU_PER_CENT: f64 = 0.1;
const RSS_MB: u64 = 30;

#[test]
fn ten_idle_peers_cost_next_to_nothing() {
    if !usable() {
        return;
    }
    let names: Vec<String> = std::iter::once("hub".to_owned()).chain((0..PEERS).map(|n| format!("spoke{n}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_switch, hosts) = lan(&names).unwrap();
    let mut nodes: Vec<Node> = hosts.iter().map(|host| Node::new(&host.namespace, host.namespace.name())).collect();
    let lines: Vec<_> =
        nodes.iter().zip(&hosts).map(|(node, host)| node.as_peer(Some(Outer::V4.endpoint(host)))).collect();
    nodes[0].configure(&lines[1..], "");
    for spoke in &nodes[1..] {
        spoke.configure(&lines[..1], "");
    }
    for node in &mut nodes {
        node.start_up();
    }
    let (hub, spokes) = nodes.split_first().unwrap();
    for spoke in spokes {
        hub.meet(spoke);
    }
    // One of them was really used; the others have a session and nothing else.
    echo_sizes(&hub.namespace, &spokes[0].namespace, spokes[0].v6.into(), &[100, 1000]);
    let used = Instant::now();
    thread::sleep(SETTLE.saturating_sub(used.elapsed()));

    let (packets, usage) = (UdpCounters::of(&hub.namespace), hub.daemon().usage().unwrap());
    let start = Instant::now();
    thread::sleep(WINDOW);
    let (packets_after, usage_after) = (UdpCounters::of(&hub.namespace), hub.daemon().usage().unwrap());
    let seconds = start.elapsed().as_secs_f64();

    let on_wire = packets_after.sent - packets.sent + packets_after.received - packets.received;
    let cpu = (usage_after.cpu - usage.cpu).as_secs_f64() / seconds * 100.0;
    let rss = usage_after.rss >> 20;
    eprintln!(
        "FIGURE idle peers={PEERS} window_s={seconds:.0} packets={on_wire} cpu_per_cent={cpu:.3} rss_mb={rss} \
         peak_rss_mb={} threads={} ({})",
        usage_after.peak_rss >> 20,
        usage_after.threads,
        binary().display()
    );
    for spoke in spokes {
        let state = hub.peer(spoke).state;
        assert!([PeerState::Stale, PeerState::Idle].contains(&state), "{state:?}: verified without a proof?");
    }
    let allowed = PACKETS_PER_MINUTE * PEERS as u64;
    assert!(on_wire <= allowed, "{on_wire} packets, {allowed} allowed\n{}", tail(&hub.daemon().stderr()));
    assert!(cpu < 2.0 * CPU_PER_CENT + 0.05, "{cpu} % CPU");
    assert!(rss <= 2 * RSS_MB, "{rss} MB");
    // The idle session is still there, or made again, at once.
    hub.meet(&spokes[0]);
}
