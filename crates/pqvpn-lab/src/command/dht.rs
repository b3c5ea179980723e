// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab dht`: many daemons, each in a network of its own, that know one bootstrap node and nothing else.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{self, MAX_HOSTS};
use serde_json::Value;

use super::bench::tools;
use super::node::{Node, PORT};

/// How long all nodes together may take to be admitted, to join and to publish.
const JOIN_PATIENCE: Duration = Duration::from_secs(900);
/// Threads that ask daemons for records: as many as this machine has cores to answer with.
const READERS: usize = 2;
/// Random peers discovered one after the other, for the latency.
const DISCOVERIES: usize = 200;

/// How many, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Daemons, the bootstrap node among them.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(2..=i64::from(MAX_HOSTS)))]
    nodes: u8,
    /// Seconds over which idle traffic and CPU are measured; upkeep acts about every 300 s.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    idle_seconds: u32,
    /// A DHT of their own with this difficulty instead of the open one with 512 (5 s of CPU for each daemon).
    #[arg(long)]
    difficulty: Option<u32>,
    /// Picks the pairs whose discovery is timed.
    #[arg(long)]
    seed: Option<u64>,
}

struct Rig {
    nodes: Vec<Node>,
    ids: Vec<String>,
    daemons: Vec<Daemon>,
    _internet: topology::Internet,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let program = tools::pqvpn()?;
    let internet = topology::internet(args.nodes)?;
    let make = |host| Node::make("pqvpn-dht", host, program.clone());
    let nodes = internet.hosts.iter().map(make).collect::<anyhow::Result<Vec<_>>>()?;
    let id = |node: &Node| Ok(node.identity()?["peer_id"].as_str().context("a node has a PeerID")?.to_owned());
    let ids = nodes.iter().map(id).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rig = Rig { nodes, ids, daemons: Vec::new(), _internet: internet };
    let mut report = Report::new("dht");
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
    report.figure("nodes", args.nodes);
    report.figure("seed", seed);
    rig.start(args, &mut report)?;
    rig.everybody(&mut report)?;
    rig.discover(seed, &mut report)?;
    rig.idle(args, &mut report)?;
    rig.stop()?;
    Ok(report)
}

fn say(text: &str) {
    // Progress is for people who wait; a closed standard error changes nothing.
    _ = writeln!(io::stderr(), "{text}");
}

impl Rig {
    /// Starts all daemons, the bootstrap node first, and waits until each has joined and published.
    fn start(&mut self, args: &Args, report: &mut Report) -> anyhow::Result<()> {
        let door = format!("pqvpn://{}@{}:{PORT}", self.ids[0], self.nodes[0].host.ipv4);
        let dht = args.difficulty.map_or_else(String::new, |difficulty| {
            format!("difficulty = {difficulty}\nnetwork = \"{}\"\n", "1ab0".repeat(16))
        });
        let begun = Instant::now();
        for (index, node) in self.nodes.iter().enumerate() {
            let nodes = if index == 0 { String::new() } else { format!("nodes = [\"{door}\"]\n") };
            node.configure(&format!(
                "[node]\nlisten = [\"0.0.0.0:{PORT}\"]\n[interface]\nname = \"lab0\"\n[logging]\nlevel = \"warn\"\n\
                 [bootstrap]\nlan = false\n{nodes}[dht]\n{dht}"
            ))?;
            self.daemons.push(node.daemon()?);
        }
        say(&format!("{} daemons run; waiting until all have joined", self.nodes.len()));
        for (index, node) in self.nodes.iter().enumerate() {
            let left = JOIN_PATIENCE.saturating_sub(begun.elapsed());
            process::wait_until(&format!("node {index} to join"), left, || {
                thread::sleep(Duration::from_millis(500));
                let status = node.json(&["dht", "status"]).ok()?;
                let stored = status["own_records"][0]["stored"].as_u64().unwrap_or(0);
                (status["state"] == "joined" && stored > 0).then_some(())
            })
            .with_context(|| format!("its status: {:?}", node.run(&["dht", "status"])))?;
        }
        report.figure("joined_s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Every node looks every other's record up.
    fn everybody(&self, report: &mut Report) -> anyhow::Result<()> {
        say("every node looks every other up");
        let (next, found, failures) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(reader) = self.nodes.get(index) else { break };
                        for (_, owner) in self.ids.iter().enumerate().filter(|(other, _)| *other != index) {
                            match lookup(reader, owner) {
                                Ok(got) if !got["record"].is_null() => drop(found.fetch_add(1, Ordering::Relaxed)),
                                Ok(got) => {
                                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(got.to_string())
                                }
                                Err(error) => {
                                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                                }
                            }
                        }
                    }
                });
            }
        });
        let pairs = self.nodes.len() * (self.nodes.len() - 1);
        report.figure("pairs", pairs);
        report.figure("found", found.into_inner());
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.figure("not_found", failures.len());
        report.figure("all_pairs_s", begun.elapsed().as_secs_f64());
        report.bar("not_found", Op::Equal, 0.0);
        for failure in failures.iter().take(5) {
            say(failure);
        }
        Ok(())
    }

    /// Random peers, one after the other: how long until the first record is there.
    fn discover(&self, seed: u64, report: &mut Report) -> anyhow::Result<()> {
        say("discovering random peers");
        let mut state = seed;
        let mut draw = |below: usize| {
            // SplitMix64 (Steele, Lea & Flood 2014): pairs need no better.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap_or(0)
        };
        let (mut first, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..DISCOVERIES {
            let reader = draw(self.nodes.len());
            let owner = (reader + 1 + draw(self.nodes.len() - 1)) % self.nodes.len();
            let got = lookup(&self.nodes[reader], &self.ids[owner])?;
            first.extend(got["first_ms"].as_f64());
            whole.extend(got["lookup"]["elapsed_ms"].as_f64());
        }
        for (name, values) in [("discovery", &mut first), ("complete_lookup", &mut whole)] {
            values.sort_by(f64::total_cmp);
            for (label, quantile) in [("p50", 0.5), ("p95", 0.95), ("max", 1.0)] {
                report.figure(&format!("{name}_{label}_ms"), at(values, quantile));
            }
        }
        report.bar("discovery_p50_ms", Op::Below, 100.0);
        Ok(())
    }

    /// Nobody asks anything: what do the nodes still send and compute?
    fn idle(&self, args: &Args, report: &mut Report) -> anyhow::Result<()> {
        let period = Duration::from_secs(args.idle_seconds.into());
        say(&format!("leaving everybody alone for {} s", args.idle_seconds));
        // What the last lookups started has ended by then.
        thread::sleep(Duration::from_secs(15));
        let before = self.nodes.iter().zip(&self.daemons).map(usage).collect::<anyhow::Result<Vec<_>>>()?;
        thread::sleep(period);
        let (mut sent, mut received, mut cpu, mut rss) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((node, daemon), earlier) in self.nodes.iter().zip(&self.daemons).zip(before) {
            let later = usage((node, daemon))?;
            sent.push((later.0 - earlier.0) / period.as_secs_f64());
            received.push((later.1 - earlier.1) / period.as_secs_f64());
            cpu.push((later.2 - earlier.2) / period.as_secs_f64() * 100.0);
            rss.push(later.3);
        }
        for (name, values) in [
            ("idle_tx_bytes_s", &mut sent),
            ("idle_rx_bytes_s", &mut received),
            ("idle_cpu_percent", &mut cpu),
            ("rss_mb", &mut rss),
        ] {
            values.sort_by(f64::total_cmp);
            report.figure(&format!("{name}_mean"), values.iter().sum::<f64>() / values.len().max(1) as f64);
            report.figure(&format!("{name}_max"), at(values, 1.0));
            report.row([
                ("figure", name.into()),
                ("min", at(values, 0.0)),
                ("median", at(values, 0.5)),
                ("p95", at(values, 0.95)),
                ("max", at(values, 1.0)),
            ]);
        }
        report.bar("idle_tx_bytes_s_mean", Op::AtMost, 100.0);
        report.bar("idle_cpu_percent_mean", Op::AtMost, 0.1);
        Ok(())
    }

    fn stop(self) -> anyhow::Result<()> {
        for daemon in &self.daemons {
            let finished = daemon.terminate(super::node::PATIENCE)?;
            anyhow::ensure!(finished.status.success(), "a daemon ended badly: {}", finished.stderr);
        }
        Ok(())
    }
}

fn lookup(reader: &Node, owner: &str) -> anyhow::Result<Value> {
    reader.json(&["dht", "get", owner])
}

fn at(sorted: &[f64], quantile: f64) -> Value {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (last as f64 * quantile).round() as usize;
    sorted.get(index).map_or(Value::Null, |value| Value::from((value * 1000.0).round() / 1000.0))
}

/// Bytes sent and received on the underlay so far (Ethernet headers included), CPU seconds, resident megabytes.
pub(super) fn usage((node, daemon): (&Node, &Daemon)) -> anyhow::Result<(f64, f64, f64, f64)> {
    let counters = node.host.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = counters.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("eth0 has counters")?;
    let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let (received, sent) = (fields.first().context("received")?, fields.get(8).context("sent")?);
    let used = daemon.usage()?;
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let rss = used.rss as f64 / 1e6;
    Ok((*sent, *received, used.cpu.as_secs_f64(), rss))
}
