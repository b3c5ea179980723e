// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab scale`: one daemon, the hub, and very many peers that all have sessions with it.
//!
//! The peers are whole nodes that share one process (`crates/pqvpn-node/examples/swarm.rs`), each at an address of its own, as
//! peers have it in the world: the hub counts handshakes by address. They know the hub's address, the hub knows none of theirs.

use std::fmt::Write as _;
use std::net::SocketAddrV6;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use pqvpn_lab::impair;
use pqvpn_lab::process::{Daemon, Usage};
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{self, Host, Interface};

use super::bench::tools;
use super::network::{look, quantile, rounded, say, sorted};
use super::node::{Node, PATIENCE, PORT};
use swarm::{Member, Swarm};

pub(super) mod swarm;
mod traffic;

/// What comes to this port is thrown away (RFC 863).
const DISCARD: u16 = 9;
/// The hub's interface, and bytes of IPv6 and UDP headers.
const TUN: &str = "scale0";
const INNER: u64 = 40 + 8;
/// Ethernet, IPv4 and UDP headers.
const OUTER: u64 = 14 + 20 + 8;
/// Where the peers live: all of it is local to the swarm's namespace.
const PEERS: &str = "172.20.0.1/16";
/// How long the peers may take for a session each before they are given up.
const STORM: Duration = Duration::from_secs(60);
/// After this the searches that follow a new session are over.
const SETTLE: Duration = Duration::from_secs(10);
/// How long the links may take to fall asleep, and how long until what they held is given back.
const SLEEP: (Duration, Duration) = (Duration::from_secs(90), Duration::from_secs(8));

/// How many peers, and how long each part takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Peers, each with a live session.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=2000))]
    peers: u16,
    /// Seconds of each transfer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Rounds of transfers to one peer and to all.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Seconds over which the CPU of the idle hub is measured; sessions end after 180 s without use.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    idle_seconds: u32,
    /// One transfer of a second each, and no more than 2 s of idleness.
    #[arg(long, conflicts_with_all = ["seconds", "repeat", "idle_seconds"])]
    quick: bool,
}

struct Rig {
    hub: Node,
    daemon: Option<Daemon>,
    swarm: Swarm,
    members: Vec<Member>,
    /// The peers' end of the wire.
    far: Interface,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let (seconds, repeat, idle, settle) = if args.quick {
        (1, 1, 2, Duration::from_secs(1))
    } else {
        (args.seconds, args.repeat, args.idle_seconds, SETTLE)
    };
    let (program, swarm) = (tools::pqvpn()?, tools::swarm()?);
    let mut report = Report::new("scale");
    report.figure("peers", args.peers);
    let (hub_host, swarm_host) = topology::pair("hub", "swarm")?;
    let alone = alone(&hub_host, program.clone())?;
    let mut rig = Rig::build(args.peers, &hub_host, &swarm_host, program, swarm)?;
    let none_up = rig.usage()?;
    rig.storm("start", &mut report)?;
    thread::sleep(settle);
    rig.memory("_awake", args.peers, [alone, none_up], &mut report)?;
    if !args.quick {
        rig.asleep(&mut report)?;
    }
    rig.memory("", args.peers, [alone, none_up], &mut report)?;
    rig.idle(idle, &mut report)?;
    rig.transfers(seconds, repeat, &mut report)?;
    rig.restart(&mut report)?;
    bars(args.peers, &mut report);
    rig.daemon.take().context("the hub runs")?.terminate(PATIENCE)?;
    Ok(report)
}

/// Data of tunnels (their first byte is `001kkkkk`), merged or of the one length that the sender gives it, and no probe.
fn data() -> String {
    let one = usize::from(traffic::SIZE) + 20 + 8;
    format!(
        "meta l4proto udp meta length {{ {one}, {}, 2000-65535 }} @th,64,3 1",
        one + 40 + 8 + pqvpn_packet::header::OVERHEAD
    )
}

fn bars(peers: u16, report: &mut Report) {
    for what in ["start_verified", "idle_sessions", "restart_verified"] {
        report.bar(what, Op::Equal, peers.into());
    }
    report.bar("all_to_one", Op::AtLeast, 0.9);
    report.bar("rss_kb_per_peer", Op::AtMost, 40.0);
    report.bar("idle_cpu_percent", Op::Below, 1.0);
    report.bar("restart_last_s", Op::AtMost, 10.0);
}

fn config(members: &[Member]) -> String {
    let mut text = format!(
        "[node]\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nport_mapping = false\n[interface]\nname = \"{TUN}\"\n\
         ipv4 = false\n[logging]\nlevel = \"warn\"\n[bootstrap]\nlan = false\n[dht]\nenabled = false\n"
    );
    for (number, member) in members.iter().enumerate() {
        // Writing to a text cannot fail.
        _ = writeln!(text, "[[peers]]\nid = \"{}\"\nname = \"peer-{number}\"", member.id);
    }
    text
}

/// The memory of a hub that knows nobody.
fn alone(host: &Host, program: PathBuf) -> anyhow::Result<Usage> {
    let node = Node::make("pqvpn-scale", host, program)?;
    node.configure(&config(&[]))?;
    let daemon = node.daemon()?;
    node.json(&["status"])?;
    let usage = daemon.usage()?;
    daemon.terminate(PATIENCE)?;
    Ok(usage)
}

impl Rig {
    /// Starts the hub and all peers; there are no sessions yet.
    fn build(peers: u16, hub: &Host, far: &Host, program: PathBuf, swarm: PathBuf) -> anyhow::Result<Self> {
        let net: IpNet = PEERS.parse()?;
        Interface::find(&far.namespace, "lo")?.add_address(net)?;
        topology::add_route(&hub.namespace, net.trunc(), far.ipv4.into())?;
        let mut swarm = Swarm::spawn(&far.namespace, swarm, peers, net.addr(), PORT)?;
        let members = swarm.who()?;
        let node = Node::make("pqvpn-scale", hub, program)?;
        let id = node.identity()?;
        node.configure(&config(&members))?;
        let daemon = node.daemon()?;
        let begun = Instant::now();
        swarm.start(id["peer_id"].as_str().context("a node has a PeerID")?, &format!("{}:{PORT}", hub.ipv4))?;
        say(&format!("{peers} peers started in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(Self { hub: node, daemon: Some(daemon), swarm, members, far: far.interface.clone() })
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(self.daemon.as_ref().context("the hub runs")?.usage()?)
    }

    /// What the hub says of its peers: those whose last round trip is fresh, and those with a session.
    fn seen(&self) -> anyhow::Result<(usize, usize)> {
        let status = self.hub.json(&["status"])?;
        let peers = status["peers"].as_array().context("a status has peers")?;
        let verified = peers.iter().filter(|peer| peer["state"] == "verified").count();
        Ok((verified, peers.iter().filter(|peer| !peer["session"].is_null()).count()))
    }

    /// Every peer makes a round trip, all at once, for which it needs a session; both ends say what came of it.
    fn storm(&mut self, name: &str, report: &mut Report) -> anyhow::Result<()> {
        let pings = self.swarm.ping(STORM)?;
        let answered = pings["answered"].as_f64().unwrap_or_default();
        let last = pings["last_ms"].as_f64().unwrap_or(f64::NAN) / 1e3;
        // The hub's own round trip with the last peer may still be under way.
        let all = || self.seen().ok().filter(|(verified, _)| *verified == self.members.len());
        let (verified, sessions) = look("every peer to be verified", PATIENCE / 4, all).or_else(|_| self.seen())?;
        say(&format!("{name}: {pings}; the hub has {sessions} sessions, {verified} verified"));
        report.figure(&format!("{name}_answered"), answered);
        report.figure(&format!("{name}_verified"), verified);
        report.figure(&format!("{name}_half_s"), rounded(pings["half_ms"].as_f64().unwrap_or(f64::NAN) / 1e3));
        report.figure(&format!("{name}_last_s"), rounded(last));
        report.figure(&format!("{name}_handshakes_per_s"), rounded(answered / last));
        Ok(())
    }

    /// Waits until the links of all sessions sleep.
    fn asleep(&self, report: &mut Report) -> anyhow::Result<()> {
        let begun = Instant::now();
        let asleep = || -> anyhow::Result<usize> {
            let status = self.hub.json(&["status"])?;
            let peers = status["peers"].as_array().context("a status has peers")?;
            Ok(peers.iter().filter(|peer| peer["session"]["link_asleep"] == true).count())
        };
        let all = || asleep().ok().filter(|asleep| *asleep == self.members.len());
        let count = look("every link to be asleep", SLEEP.0, all).or_else(|_| asleep())?;
        say(&format!("{count} links sleep after {:.0} s", begun.elapsed().as_secs_f64()));
        report.figure("asleep", count);
        thread::sleep(SLEEP.1);
        Ok(())
    }

    fn memory(&self, name: &str, peers: u16, before: [Usage; 2], report: &mut Report) -> anyhow::Result<()> {
        let now = self.usage()?;
        #[expect(clippy::cast_precision_loss, reason = "kilobytes")]
        let kb = |bytes: u64| bytes as f64 / 1e3;
        let [alone, none_up] = before.map(|usage| kb(usage.rss));
        report.figure("rss_kb_alone", rounded(alone));
        report.figure("rss_kb_none_up", rounded(none_up));
        report.figure(&format!("rss_kb_all_up{name}"), rounded(kb(now.rss)));
        report.figure(&format!("rss_kb_per_peer{name}"), rounded((kb(now.rss) - alone) / f64::from(peers)));
        report.figure(&format!("rss_kb_per_session{name}"), rounded((kb(now.rss) - none_up) / f64::from(peers)));
        report.figure("threads", now.threads);
        Ok(())
    }

    /// The hub's CPU time while all sessions are up and nobody sends anything.
    fn idle(&self, seconds: u32, report: &mut Report) -> anyhow::Result<()> {
        let before = self.usage()?;
        let begun = Instant::now();
        thread::sleep(Duration::from_secs(seconds.into()));
        let used = self.usage()?.cpu.saturating_sub(before.cpu);
        let percent = used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        let (_, sessions) = self.seen()?;
        report.figure("idle_seconds", seconds);
        report.figure("idle_sessions", sessions);
        report.figure("idle_cpu_percent", rounded(percent));
        say(&format!("idle: {percent:.2} % of a core, {sessions} sessions"));
        Ok(())
    }

    /// Datagrams flat out to one peer and to all in turn, alternately.
    fn transfers(&mut self, seconds: u32, repeat: u32, report: &mut Report) -> anyhow::Result<()> {
        let inside = |member: &Member| SocketAddrV6::new(member.address, DISCARD, 0, 0);
        let all: Vec<_> = self.members.iter().map(inside).collect();
        self.swarm.count_bare(DISCARD)?;
        let outside = |member: &Member| SocketAddrV6::new(member.at.ip().to_ipv6_mapped(), DISCARD, 0, 0);
        let bare: Vec<_> = self.members.iter().map(outside).collect();
        let mut wire = traffic::Passed::new(&self.hub.host, self.hub.host.interface.name(), OUTER)?;
        let outer = self.hub.host.interface.name().to_owned();
        let kinds = [
            ("", traffic::LONGEST, &all, None),
            ("raw_", traffic::LONGEST, &bare, None),
            ("single_", 1, &all, None),
            ("raw_single_", 1, &bare, None),
            ("wire_", traffic::LONGEST, &all, Some((TUN, INNER))),
            ("raw_wire_", traffic::LONGEST, &bare, Some((&*outer, OUTER))),
            ("wire_single_", 1, &all, Some((TUN, INNER))),
            ("raw_wire_single_", 1, &bare, Some((&*outer, OUTER))),
        ];
        for (kind, burst, all, passed) in kinds {
            // Nobody of the peers' is woken, or touches what was sent.
            let _lost = passed.map(|_| impair::drop_matching(&self.far, impair::Direction::In, &data())).transpose()?;
            let mut ratios = Vec::new();
            let mut rates = [Vec::new(), Vec::new()];
            for round in 0..repeat {
                // Whoever goes first does not always do so.
                let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
                for which in order {
                    let targets = if which == 0 { &all[..1] } else { &all[..] };
                    let before = self.usage()?;
                    let count = match passed {
                        None => traffic::Count::Delivered(&mut self.swarm),
                        Some((interface, headers)) => {
                            traffic::Count::Passed(traffic::Passed::new(&self.hub.host, interface, headers)?)
                        }
                    };
                    let on_wire = wire.bytes()?;
                    let sent = traffic::flat_out(&self.hub.host, count, targets, burst, seconds)?;
                    let on_wire = wire.bytes()? - on_wire;
                    let cpu = self.usage()?.cpu.saturating_sub(before.cpu).as_secs_f64();
                    rates[which].push(sent.gbit_s);
                    report.row([
                        ("to", if which == 0 { "one" } else { "all" }.into()),
                        ("counted", if passed.is_some() { "passed on" } else { "delivered" }.into()),
                        ("tunnel", u8::from(!kind.starts_with("raw")).into()),
                        ("burst", burst.into()),
                        ("round", (round + 1).into()),
                        ("gbit_s", rounded(sent.gbit_s)),
                        ("lost_percent", rounded(sent.lost_percent)),
                        ("wire_gigabytes", rounded(on_wire as f64 / 1e9)),
                        ("hub_cpu_s_per_gb", rounded(cpu / sent.gigabytes)),
                    ]);
                }
                let [one, all] = rates.each_ref().map(|rates| rates.last().copied().unwrap_or(f64::NAN));
                say(&format!("{kind}bursts of {burst}: {one:.2} Gbit/s to one peer, {all:.2} to all"));
                ratios.push(all / one);
            }
            for (name, rates) in ["one", "all"].iter().zip(rates) {
                report.figure(&format!("{kind}{name}_gbit_s"), quantile(&sorted(rates), 0.5));
            }
            report.figure(&format!("{kind}all_to_one"), quantile(&sorted(ratios), 0.5));
        }
        Ok(())
    }

    /// Kills the hub and starts it again, at a moment when every peer has something to send.
    fn restart(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.daemon.take().context("the hub runs")?.kill();
        // Its socket is still there, so this does not wait for more than the start of the process.
        self.daemon = Some(self.hub.daemon()?);
        self.storm("restart", report)
    }
}
