// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab recover`: a stream between two members behind home routers, and what happens to it when the world changes.
//!
//! The stream is a datagram every 20 ms through the tunnel and back. How long something broke it is the longest time
//! without an answer after it happened; for what ends at a moment of its own (waking up, a route that is back) it is the
//! time from then until the first answer to a datagram sent later.

use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::nat::Kind;
use pqvpn_lab::report::{Op, Report};

use super::bench::tools;
use super::network::{look, quantile, rounded, say, sorted};
use super::spread::spread;
use super::stream::{PACE, Stream};
use super::trio::{Plan, Trio};
use event::{Event, World};

mod event;

/// How long the stream may take to flow before something happens to it.
const BEFORE: Duration = Duration::from_secs(20);
/// How long a direct path may take before something happens; on a relayed one it happens as well, and is counted.
const DIRECT: Duration = Duration::from_secs(8);
/// After how long without an answer the stream counts as lost for good.
const LOST: Duration = Duration::from_secs(30);
/// It flows again when it has done so for this long,
const STEADY: Duration = Duration::from_millis(1500);
/// without a pause of more than this.
const PAUSE: Duration = PACE.saturating_mul(10);

/// What happens, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this; may be given several times [default: everything].
    #[arg(long, value_enum)]
    only: Vec<Event>,
    /// How often each thing happens.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    repeat: u8,
    /// Seconds that a stopped daemon stays so.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3600))]
    stop_seconds: u16,
    /// Everything twice, and a stop of 5 s.
    #[arg(long, conflicts_with_all = ["repeat", "stop_seconds"])]
    quick: bool,
    /// The NAT of both.
    #[arg(long, default_value_t = Kind::Home)]
    nat: Kind,
    /// The first is told the outside address of the second's router, so that a full-cone NAT needs no help.
    #[arg(long)]
    pinned: bool,
    /// Milliseconds from one host to the other and back; half of it to the relay.
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u16).range(0..=2000))]
    rtt: u16,
    /// Things at a time, each with daemons of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
}

/// How long the stream was away each time; `None` for ever, or it never flowed.
#[derive(Debug, Default)]
struct Outages {
    times: Vec<Option<f64>>,
    /// How often it began on a direct path.
    direct: usize,
    trouble: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("recover");
    let program = tools::pqvpn()?;
    let events: Vec<Event> = if args.only.is_empty() { Event::ALL.to_vec() } else { args.only.clone() };
    let order: Vec<usize> = (0..events.len()).collect();
    let (repeat, stop) = if args.quick { (2, 5) } else { (args.repeat, args.stop_seconds) };
    report.figure("repeat", repeat);
    report.figure("stop_s", stop);
    report.figure("nat", args.nat.name());
    report.figure("rtt_ms", args.rtt);
    let outages = spread(&events, &order, args.jobs, |event| {
        let plan = Plan {
            relays: event.relays(),
            spare: 1,
            pinned: args.pinned,
            round_trip: Duration::from_millis(args.rtt.into()),
            ..Plan::new(&program, Some([args.nat, args.nat]))
        };
        let outages = suffer(&plan, *event, args.nat, repeat, Duration::from_secs(stop.into()));
        say(&format!("{}: {:?} {}", event.name(), outages.times, outages.trouble));
        outages
    });
    for (event, outages) in events.iter().zip(&outages) {
        tell(*event, outages, &mut report);
    }
    Ok(report)
}

/// One thing, again and again. What cannot happen counts as never recovered.
fn suffer(plan: &Plan<'_>, event: Event, nat: Kind, repeat: u8, stop: Duration) -> Outages {
    let mut outages = Outages::default();
    let mut happen = || -> anyhow::Result<()> {
        let mut trio = Trio::build(plan)?;
        trio.found()?;
        let mut world = World::new(event, trio, nat, stop)?;
        let ends = world.trio.ends.each_ref().map(|end| end.node.host.namespace.clone());
        let stream = Stream::start(&ends[0], &ends[1], world.trio.inner(1)?)?;
        for number in 0..repeat {
            begin(&world, &stream).with_context(|| format!("before {} no. {number}", event.name()))?;
            outages.direct += usize::from(world.is_direct()?);
            stream.forget();
            let outage = once(&mut world, &stream, number)?;
            outages.times.push(outage.map(|time| time.as_secs_f64()));
            world.put_right()?;
            if outage.is_none() {
                world.trio.restart()?;
            }
        }
        drop(stream);
        world.trio.stop()
    };
    if let Some(error) = happen().err() {
        outages.trouble = format!("{error:#}");
    }
    outages.times.resize(repeat.into(), None);
    outages
}

/// Waits until the stream flows, on a direct path where there can be one soon.
fn begin(world: &World, stream: &Stream) -> anyhow::Result<()> {
    let flows = look("the stream to flow", BEFORE, || stream.is_steady(STEADY, PAUSE).then_some(()));
    flows
        .with_context(|| world.trio.seen(0).map(|seen| format!("{}; {}", seen.state, seen.why)).unwrap_or_default())?;
    if world.event.wants_direct() {
        // A relayed start is counted, and is no reason to give up.
        _ = look("a direct path", DIRECT, || world.is_direct().ok()?.then_some(()));
    }
    Ok(())
}

/// Lets it happen once and gives how long the stream was away.
fn once(world: &mut World, stream: &Stream, number: u8) -> anyhow::Result<Option<Duration>> {
    let began = stream.now();
    world.happen(number)?;
    let ended = stream.now();
    let since = if world.event.has_an_end() { ended } else { began };
    let back = look("the stream to flow again", LOST, || {
        // What was under way when it happened does not show that it flows on.
        (stream.now() > since + STEADY && stream.is_steady(STEADY, PAUSE)).then_some(())
    });
    if back.is_err() {
        return Ok(None);
    }
    Ok(if world.event.has_an_end() { stream.first_after(since) } else { Some(stream.longest_gap(since)) })
}

fn tell(event: Event, outages: &Outages, report: &mut Report) {
    let times = sorted(outages.times.iter().copied().flatten().collect());
    let lost = outages.times.len() - times.len();
    let figure = |what: &str| format!("{}_{what}", event.name().replace('-', "_"));
    report.figure(&figure("p95_s"), quantile(&times, 0.95));
    report.bar(&figure("p95_s"), Op::Below, event.bar());
    report.figure(&figure("lost"), lost);
    report.bar(&figure("lost"), Op::Equal, 0.0);
    report.row([
        ("event", event.name().into()),
        ("n", outages.times.len().into()),
        ("lost", lost.into()),
        ("began_direct", outages.direct.into()),
        ("p50_s", quantile(&times, 0.5)),
        ("p95_s", quantile(&times, 0.95)),
        ("max_s", times.last().copied().map_or(serde_json::Value::Null, rounded)),
        ("bar_s", event.bar().into()),
        ("trouble", outages.trouble.clone().into()),
    ]);
}
