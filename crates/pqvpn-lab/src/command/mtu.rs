// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab mtu`: a path that swallows long packets and tells nobody, and a TCP transfer that has to get through.
//!
//! The path becomes so while the members are in touch, or it is so before they meet. Detection is the time from the
//! first byte written until the first bytes of a full segment are read at the other end.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use pqvpn_lab::impair::{self, Direction, Impairment, Offloads};
use pqvpn_lab::netns::Namespace;
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::Interface;
use serde_json::Value;

use super::bench::tools;
use super::network::{look, quantile, rounded, say, sorted};
use super::node::PATIENCE;
use super::trio::{Plan, Trio};

/// The longest IP packets that get through.
const LIMITS: [u32; 3] = [1400, 1280, 1000];
/// How long a transfer may take; the bars are shorter.
const LIMIT: Duration = Duration::from_secs(10);
/// The inner MTU of a path on which no padded probe was answered yet.
const UNSEARCHED: u64 = 1168;
/// Where the receiver listens.
const PORT: u16 = 5001;

/// How much, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Megabytes of each transfer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    megabytes: u32,
    /// Transfers of each kind.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Only this limit; may be given several times [default: 1400, 1280 and 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(576..=1500))]
    limit: Vec<u32>,
}

/// What a transfer came to.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    detection: Duration,
    whole: Duration,
}

/// What all transfers of one kind came to.
#[derive(Debug, Default)]
struct Outcome {
    transfers: Vec<Transfer>,
    /// Path and inner MTU when the transfer was over: how it went.
    then: String,
    /// Inner MTU of the direct path, once it was searched.
    mtu: Option<u64>,
    trouble: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("mtu");
    let program = tools::pqvpn()?;
    let limits = if args.limit.is_empty() { LIMITS.to_vec() } else { args.limit.clone() };
    report.figure("megabytes", args.megabytes);
    report.figure("repeat", args.repeat);
    let (mut incomplete, mut detections) = (0, Vec::new());
    for limit in limits {
        for from_the_start in [false, true] {
            let mut outcome = Outcome::default();
            for _ in 0..args.repeat {
                if let Err(error) = one(&program, limit, from_the_start, args.megabytes, &mut outcome) {
                    outcome.trouble = format!("{error:#}");
                    say(&format!("{limit} bytes: {}", outcome.trouble));
                    incomplete += 1;
                }
            }
            tell(limit, from_the_start, &outcome, args.repeat, &mut report);
            detections.extend(outcome.transfers.iter().map(|transfer| transfer.detection.as_secs_f64()));
        }
    }
    report.figure("incomplete", incomplete);
    report.bar("incomplete", Op::Equal, 0.0);
    report.figure("detection_max_s", sorted(detections).last().copied().map_or(Value::Null, rounded));
    report.bar("detection_max_s", Op::Below, 3.0);
    Ok(report)
}

/// One transfer between two new daemons.
fn one(program: &Path, limit: u32, from_the_start: bool, megabytes: u32, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut trio = Trio::build(&Plan::new(program, None))?;
    // Only whole packets have a length that means something.
    for end in &trio.ends {
        impair::set_offloads(&end.node.host.interface, Offloads::Off)?;
    }
    trio.found()?;
    let holes = if from_the_start {
        let holes = swallow(&trio, limit)?;
        trio.restart()?;
        Some(holes)
    } else {
        None
    };
    trio.first_packet(PATIENCE)?;
    let holes = match holes {
        Some(holes) => holes,
        None => {
            // Whatever is found out about a good path has been found out by then.
            trio.wait_for_path("direct", PATIENCE)?;
            swallow(&trio, limit)?
        }
    };
    let hosts = trio.ends.each_ref().map(|end| end.node.host.namespace.clone());
    let transfer = transfer(&hosts, trio.inner(1)?, u64::from(megabytes) * 1_000_000);
    let then = trio.seen(0)?;
    outcome.then = format!("{} {}", then.kind, then.mtu.map_or_else(String::new, |mtu| mtu.to_string()));
    outcome.transfers.push(transfer?);
    // From the start it may be over before there is a direct path, or before its first padded probe was answered.
    let found = look("a direct path that was searched", PATIENCE, || {
        _ = trio.ends[0].ping(&trio.ends[1].name, PATIENCE);
        trio.seen(0).ok().filter(|seen| seen.kind == "direct" && seen.mtu != Some(UNSEARCHED))
    });
    outcome.mtu = found?.mtu;
    holes.into_iter().try_for_each(Impairment::end)?;
    trio.stop()
}

/// Long packets of the two ends vanish at the router between them.
fn swallow(trio: &Trio, limit: u32) -> anyhow::Result<Vec<Impairment>> {
    let mut holes = Vec::new();
    for port in ["port0", "port1"] {
        let port = Interface::find(&trio.internet.router, port)?;
        for direction in [Direction::In, Direction::Out] {
            holes.push(impair::mtu_black_hole(&port, direction, limit)?);
        }
    }
    Ok(holes)
}

/// Sends so many bytes over one TCP connection.
fn transfer(hosts: &[Namespace; 2], target: IpAddr, bytes: u64) -> anyhow::Result<Transfer> {
    let listener = hosts[1].run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    let receiving = hosts[1].thread("receiver", move || receive(&listener, bytes))?;
    let sending = hosts[0].thread("sender", move || send(target, bytes))?;
    // It ends with the connection, which has deadlines.
    let sent = sending.join().map_err(|_| anyhow!("the sending thread panicked"))?;
    if sent.is_err() {
        // Whoever still waits for a connection gets one that ends at once.
        _ = hosts[1].run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)));
    }
    let received = receiving.join().map_err(|_| anyhow!("the receiving thread panicked"))?;
    let began = sent?;
    let (first, last) = received?;
    Ok(Transfer { detection: first.saturating_duration_since(began), whole: last.saturating_duration_since(began) })
}

/// Gives when the first byte was written.
fn send(target: IpAddr, bytes: u64) -> anyhow::Result<Instant> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(target, PORT), PATIENCE).context("connecting")?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let began = Instant::now();
    let block = [0x5a; 16_384];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        stream.write_all(&block[..len]).context("sending")?;
        left -= len as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the other has read everything and closes.
    _ = stream.read(&mut [0; 1]).context("waiting for the end")?;
    Ok(began)
}

/// Gives when the first and the last byte were read.
fn receive(listener: &TcpListener, bytes: u64) -> anyhow::Result<(Instant, Instant)> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    let (mut count, mut first) = (0_u64, None);
    let mut buffer = [0; 65_536];
    loop {
        let len = stream.read(&mut buffer).with_context(|| format!("{count} bytes came, then nothing"))?;
        if len == 0 {
            break;
        }
        count += len as u64;
        first.get_or_insert_with(Instant::now);
    }
    anyhow::ensure!(count == bytes, "{count} of {bytes} bytes came");
    Ok((first.context("nothing came")?, Instant::now()))
}

fn tell(limit: u32, from_the_start: bool, outcome: &Outcome, repeat: u32, report: &mut Report) {
    let of = |time: fn(&Transfer) -> Duration| {
        sorted(outcome.transfers.iter().map(|transfer| time(transfer).as_secs_f64()).collect())
    };
    let (detections, wholes) = (of(|transfer| transfer.detection), of(|transfer| transfer.whole));
    report.row([
        ("limit", limit.into()),
        ("when", if from_the_start { "from the start" } else { "later" }.into()),
        ("n", repeat.into()),
        ("complete", outcome.transfers.len().into()),
        ("detection_p50_s", quantile(&detections, 0.5)),
        ("detection_max_s", quantile(&detections, 1.0)),
        ("transfer_p50_s", quantile(&wholes, 0.5)),
        ("then", outcome.then.clone().into()),
        ("inner_mtu", outcome.mtu.map_or(Value::Null, Value::from)),
        ("trouble", outcome.trouble.clone().into()),
    ]);
}
