// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab join`: from nothing to two machines, then many by one code, then more, then two that are left alone.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::MAX_HOSTS;
use serde_json::Value;

use super::super::{bench::tools, dht::usage};
use super::{Member, Mesh, SETTLE, look, quantile, rounded, say, sorted, tell};

/// Threads that ping: as many as a small machine has cores.
const PINGERS: usize = 2;
/// How long a ping may take, a handshake among many included.
const PING: Duration = Duration::from_secs(15);
/// How long two nodes may take to find each other when everybody else is gone.
const ALONE: Duration = Duration::from_secs(60);
/// How long daemons are left alone until links of the joins and lookups have ended.
const QUIET: Duration = Duration::from_secs(60);
/// Most daemons, so that all hosts have room.
const MOST: i64 = MAX_HOSTS as i64 - 20;

/// How many.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Daemons joined by one code, the founder among them.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(4..=MOST))]
    nodes: u8,
    /// Nodes that join afterwards, one by one.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=15))]
    more: u8,
    /// How long everybody is left alone and measured, in s.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(10..=600))]
    idle_seconds: u16,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("join");
    report.figure("nodes", args.nodes);
    first_two(&mut report)?;
    let mut mesh = Mesh::build(args.nodes + args.more, |index| format!("n{index:02}"))?;
    let times = sorted(mesh.found(args.nodes.into(), &[])?);
    report.figure("join_p50_s", quantile(&times, 0.5));
    report.figure("join_p95_s", quantile(&times, 0.95));
    let names = Mesh::settle(&mesh.running().collect::<Vec<_>>(), SETTLE)?;
    report.figure("members", names.len());
    report.bar("members", Op::Equal, args.nodes.into());
    all_pairs(&mesh, &mut report);
    more(&mut mesh, args, &mut report)?;
    let links = sorted(gossip_links(&mesh)?);
    report.figure("gossip_links_at_once_median", quantile(&links, 0.5));
    idle(&mesh, args, &mut report)?;
    what_it_costs(&mesh, &mut report)?;
    left_alone(&mut mesh, &mut report)?;
    mesh.stop()?;
    Ok(report)
}

/// Two machines that know nothing of each other and have no configuration: everything that has to be waited for.
fn first_two(report: &mut Report) -> anyhow::Result<()> {
    say("two machines, nothing configured");
    let internet = pqvpn_lab::topology::internet(2)?;
    let [one, two] = internet.hosts.as_slice() else { anyhow::bail!("two hosts") };
    let program = tools::pqvpn()?;
    let (mut one, mut two) = (Member::make(&program, one, "one", "")?, Member::make(&program, two, "two", "")?);
    // Empty files, so that those of this machine do not count.
    one.node.configure("")?;
    two.node.configure("")?;
    let start = Instant::now();
    let mut stage = Stage { report, since: start, name: "first_two" };
    one.start()?;
    one.json(&["net", "create", "home", "--as", "one"])?;
    stage.done("create_s");
    let code = one.invite(1)?;
    stage.done("invite_s");
    two.start()?;
    two.json(&["join", &code, "--name", "two"])?;
    stage.done("join_s");
    let from_join = Instant::now();
    two.ping("one", PING).context("the first ping")?;
    stage.done("ping_s");
    report.figure("first_two_machines_s", rounded(start.elapsed().as_secs_f64()));
    one.ping("two", PING).context("the first ping back")?;
    report.figure("first_two_pong_s", rounded(from_join.elapsed().as_secs_f64()));
    report.bar("first_two_machines_s", Op::AtMost, 10.0);
    one.stop()?;
    two.stop()
}

/// Times of one thing after the other.
struct Stage<'a> {
    report: &'a mut Report,
    since: Instant,
    name: &'static str,
}

impl Stage<'_> {
    fn done(&mut self, what: &str) {
        self.report.figure(&format!("{}_{what}", self.name), rounded(self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}

/// Every node pings every other by name.
fn all_pairs(mesh: &Mesh, report: &mut Report) {
    say("every node pings every other by its name");
    let members: Vec<&Member> = mesh.running().collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..PINGERS {
            scope.spawn(|| {
                while let Some(from) = members.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for to in members.iter().filter(|to| to.name != from.name) {
                        if let Err(error) = from.ping(&to.name, PING) {
                            let failure = format!("{} to {}: {error:#}", from.name, to.name);
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.figure("pairs", members.len() * (members.len() - 1));
    report.figure("pairs_silent", failures.len());
    report.figure("all_pairs_s", rounded(start.elapsed().as_secs_f64()));
    report.bar("pairs_silent", Op::Equal, 0.0);
    tell("no ping", &failures);
}

/// One more node, and one more: until `join` is done, and until somebody else than who let it in answers a ping.
fn more(mesh: &mut Mesh, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    say("more nodes join, one by one");
    let code = mesh.members[0].invite(args.more.into())?;
    let (mut joins, mut pings) = (Vec::new(), Vec::new());
    for index in usize::from(args.nodes)..mesh.members.len() {
        mesh.members[index].start()?;
        let (newcomer, other) = (&mesh.members[index], &mesh.members[1 + index % (usize::from(args.nodes) - 1)]);
        let start = Instant::now();
        newcomer.join(&code)?;
        joins.push(start.elapsed().as_secs_f64());
        // Retried: what counts is when somebody else answers, whatever that takes.
        let mut why = String::new();
        let answered =
            look("a pong", PING, || newcomer.ping(&other.name, PING).map_err(|error| why = format!("{error:#}")).ok());
        answered.with_context(|| format!("{} pings {}: {why}", newcomer.name, other.name))?;
        pings.push(start.elapsed().as_secs_f64());
        let (join_s, ping_s) = (joins.last().copied(), pings.last().copied());
        report.row([
            ("node", newcomer.name.clone().into()),
            ("join_s", join_s.map_or(Value::Null, rounded)),
            ("pings", other.name.clone().into()),
            ("join_and_ping_s", ping_s.map_or(Value::Null, rounded)),
        ]);
    }
    let (joins, pings) = (sorted(joins), sorted(pings));
    report.figure("join_more_p50_s", quantile(&joins, 0.5));
    report.figure("join_more_p95_s", quantile(&joins, 0.95));
    report.figure("join_and_ping_p95_s", quantile(&pings, 0.95));
    report.bar("join_more_p95_s", Op::Below, 3.0);
    report.bar("join_and_ping_p95_s", Op::Below, 3.0);
    let start = Instant::now();
    Mesh::settle(&mesh.running().collect::<Vec<_>>(), SETTLE)?;
    report.figure("settled_after_last_join_s", rounded(start.elapsed().as_secs_f64()));
    Ok(())
}

fn gossip_links(mesh: &Mesh) -> anyhow::Result<Vec<f64>> {
    mesh.running().map(|member| member.network()?["gossip"]["links"].as_f64().context("links")).collect()
}

/// Nobody says anything: what do the daemons still send and compute, DHT and sessions included?
fn idle(mesh: &Mesh, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    say(&format!("leaving everybody alone for {} and {} s", QUIET.as_secs(), args.idle_seconds));
    thread::sleep(QUIET);
    let used = |mesh: &Mesh| {
        let of = |member: &Member| usage((&member.node, member.daemon.as_ref().context("a daemon")?));
        mesh.running().map(of).collect::<anyhow::Result<Vec<_>>>()
    };
    let (before, start) = (used(mesh)?, Instant::now());
    thread::sleep(Duration::from_secs(args.idle_seconds.into()));
    let (after, seconds) = (used(mesh)?, start.elapsed().as_secs_f64());
    let each = |what: fn(&(f64, f64, f64, f64)) -> f64| {
        sorted(before.iter().zip(&after).map(|(before, after)| (what(after) - what(before)) / seconds).collect())
    };
    let (bytes, cpu) = (each(|used| used.0 + used.1), each(|used| used.2 * 60.0));
    for (name, values) in [("idle_bytes_s", bytes), ("idle_cpu_s_per_min", cpu)] {
        report.figure(&format!("{name}_median"), quantile(&values, 0.5));
        report.figure(&format!("{name}_max"), quantile(&values, 1.0));
    }
    Ok(())
}

/// Memory, disk and gossip of a member.
fn what_it_costs(mesh: &Mesh, report: &mut Report) -> anyhow::Result<()> {
    let (mut rss, mut disk) = (Vec::new(), Vec::new());
    for member in mesh.running() {
        let usage = member.daemon.as_ref().context("a daemon")?.usage()?;
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        rss.push(usage.rss as f64 / 1e6);
        disk.extend(member.json(&["lock", "status"])?["disk_bytes"].as_f64());
    }
    for (name, values) in [("rss_mb", rss), ("constitution_disk_bytes", disk), ("gossip_links", gossip_links(mesh)?)] {
        let values = sorted(values);
        report.figure(&format!("{name}_median"), quantile(&values, 0.5));
        report.figure(&format!("{name}_max"), quantile(&values, 1.0));
    }
    Ok(())
}

/// Everybody goes, the bootstrap node and all doors among them; two come back and have only what they remember.
fn left_alone(mesh: &mut Mesh, report: &mut Report) -> anyhow::Result<()> {
    say("everybody goes; two come back");
    mesh.members.iter_mut().try_for_each(Member::stop)?;
    // Not the founder, who is bootstrap node and door.
    let (a, b) = (1, 2);
    mesh.members[a].start()?;
    mesh.members[b].start()?;
    let start = Instant::now();
    let mut why = String::new();
    for (from, to) in [(a, b), (b, a)] {
        let (from, to) = (&mesh.members[from], &mesh.members[to]);
        let found = look("two members to find each other", ALONE, || {
            from.ping(&to.name, Duration::from_secs(5)).map_err(|error| why = format!("{error:#}")).ok()
        });
        if found.is_err() {
            say(&format!("{} does not find {}: {why}", from.name, to.name));
            report.figure("found_again", 0);
            report.bar("found_again", Op::Equal, 1.0);
            return Ok(());
        }
    }
    report.figure("found_again", 1);
    report.figure("found_again_s", rounded(start.elapsed().as_secs_f64()));
    report.bar("found_again", Op::Equal, 1.0);
    Ok(())
}
