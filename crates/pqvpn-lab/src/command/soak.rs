// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab soak`: a life in a hurry. Every second peers leave and come again, sessions step their keys; every few seconds
//! a peer's address changes under a stream of datagrams. Memory, threads, descriptors, tasks and sessions of the hub are
//! looked at all the while; what grows is a line through those looks that goes up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::{IpNet, Ipv4Net};
use pqvpn_lab::report::{Op, Report};
use serde_json::Value;

use super::bench::tools;
use super::flood::rig::Rig;
use super::flood::sample::{Sample, Sampler, median};
use super::network::{rounded, say};
use slope::Slope;

mod slope;

/// Peers that come and go.
const CROWD: u16 = 60;
/// Of them, those that do so each second.
const PER_SECOND: u16 = 10;
/// How long each may take to be back.
const BACK: Duration = Duration::from_secs(10);
/// Time between two changes of the roaming peer's address.
const ROAM: Duration = Duration::from_secs(3);
/// Its stream, in kbit/s.
const STREAM: u32 = 20_000;
/// Time between two looks at the process, and between two questions to the daemon.
const LOOK: Duration = Duration::from_secs(1);
const QUESTION: Duration = Duration::from_secs(5);
/// Looks of this time are one point of the line: what comes and goes within a turn of the crowd is not growth.
const BLOCK: Duration = Duration::from_secs(12);
/// Seconds of each of the transfers that use all there is, and the kbit/s of the one with datagrams.
const FULL: u32 = 5;
const CROWDED: u32 = 2_000_000;
/// How often everybody leaves and comes at once, before.
const BURSTS: u32 = 20;
/// Growth that nobody could tell from none.
const NOTHING_KB_MIN: f64 = 1.0;
/// As often as a configuration can ask for; the peers ask more often than that.
const HUB: &str = "[crypto]\nrekey_seconds = 5\n";

/// How long it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds in all; the first tenth is not looked at, of memory the first third.
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u32).range(60..=86_400))]
    seconds: u32,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Copy)]
struct Answer {
    at: Duration,
    tasks: u64,
    sessions: u64,
    /// Nothing where the allocator does not tell.
    allocated: Option<u64>,
}

/// What was done to it.
#[derive(Debug, Default)]
struct Done {
    left: u64,
    back: u64,
    rekeys: u64,
    roams: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    tools::need_iperf3()?;
    let mut report = Report::new("soak");
    let mut rig = Rig::build(CROWD, HUB, None)?;
    let all = rig.newcomers(CROWD, Duration::from_millis(20))?;
    anyhow::ensure!(all["answered"] == CROWD, "not everybody got in: {all}");
    let span = Duration::from_secs(args.seconds.into());
    use_all_buffers(&rig)?;
    use_all_memory(&mut rig)?;
    let begun = Instant::now();
    let sampler = Sampler::start(rig.daemon.pid(), LOOK);
    let (done, answers, lost) = live(&mut rig, span)?;
    let samples = sampler.finish();
    let took = begun.elapsed();
    say(&format!("{done:?} in {took:?}"));
    report.figure("seconds", rounded(took.as_secs_f64()));
    for (name, count) in [("left", done.left), ("back", done.back), ("rekeys", done.rekeys), ("roams", done.roams)] {
        report.figure(name, count);
    }
    report.figure("stream_lost_percent", lost);
    lines(&samples, &answers, span, &mut report);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    report.figure("back_percent", rounded(100.0 * done.back as f64 / (done.left as f64).max(1.0)));
    report.bar("back_percent", Op::AtLeast, 99.0);
    rig.finish(&mut report)?;
    Ok(report)
}

/// Packet threads keep as many buffers as a crowded moment needs. Without one at first each moment more crowded than those before
/// would look like growth, for hours.
fn use_all_buffers(rig: &Rig) -> anyhow::Result<()> {
    let course = rig.course(FULL);
    for reverse in [false, true] {
        course.tcp(4, reverse)?;
    }
    course.udp(1200, CROWDED)?;
    Ok(())
}

/// The heap has the pages that its most crowded moment needs, wherever what is free among them lies: all come at once, which nothing
/// later does.
fn use_all_memory(rig: &mut Rig) -> anyhow::Result<()> {
    for _ in 0..BURSTS {
        rig.swarm.churn(BACK, 0, CROWD)?;
        rig.swarm.rekey(0, CROWD)?;
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Everything that happens; ends after `span`.
fn live(rig: &mut Rig, span: Duration) -> anyhow::Result<(Done, Vec<Answer>, Value)> {
    let over = AtomicBool::new(false);
    let course = rig.course(u32::try_from(span.as_secs())?);
    let (peer, hub, target, seconds) = (course.one.clone(), course.two.clone(), course.target, course.seconds);
    let interface = peer.interface.clone();
    let mut at = peer.ipv4;
    let node = &rig.hub;
    let swarm = &mut rig.swarm;
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let course = super::bench::iperf::Course { one: &peer, two: &hub, target, seconds };
            course.udp(1200, STREAM)
        });
        let questions = scope.spawn(|| {
            let (begun, mut answers) = (Instant::now(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let status = node.json(&["status"])?;
                let peers = status["peers"].as_array().context("a status has peers")?;
                let sessions = peers.iter().filter(|peer| !peer["session"].is_null()).count() as u64;
                let tasks = status["tasks"].as_u64().context("a status counts tasks")?;
                let allocated = status["allocated_bytes"].as_u64();
                answers.push(Answer { at: begun.elapsed(), tasks, sessions, allocated });
                thread::sleep(QUESTION);
            }
            Ok::<_, anyhow::Error>(answers)
        });
        let (begun, mut done, mut roamed) = (Instant::now(), Done::default(), Instant::now());
        let lived = (|| {
            for turn in 0.. {
                if begun.elapsed() >= span {
                    break;
                }
                let from = turn * PER_SECOND % CROWD;
                let back = swarm.churn(BACK, from, PER_SECOND)?;
                done.left += u64::from(PER_SECOND);
                done.back += back["answered"].as_u64().unwrap_or_default();
                done.rekeys += swarm.rekey(0, CROWD)?;
                if roamed.elapsed() >= ROAM {
                    let old = IpNet::V4(Ipv4Net::new(at, 24)?);
                    let [a, b, c, last] = at.octets();
                    at = [a, b, c, if last == 52 { 53 } else { 52 }].into();
                    interface.remove_address(old)?;
                    interface.add_address(IpNet::V4(Ipv4Net::new(at, 24)?))?;
                    (roamed, done.roams) = (Instant::now(), done.roams + 1);
                }
                thread::sleep((LOOK * u32::from(turn + 1)).saturating_sub(begun.elapsed()));
            }
            Ok::<_, anyhow::Error>(done)
        })();
        over.store(true, Ordering::Relaxed);
        let ended = |_| anyhow::anyhow!("a thread of the lab panicked");
        let answers = questions.join().map_err(ended)??;
        // Every change of address loses what is under way; a transfer that broke altogether is told as such.
        let lost = stream.join().map_err(ended)?.map_or(Value::Null, |sent| rounded(sent.lost_percent));
        Ok((lived?, answers, lost))
    })
}

/// Minutes and what was seen then.
type Points = Vec<(f64, f64)>;

/// Lines through what was seen; the rows have the time before as well.
fn lines(samples: &[Sample], answers: &[Answer], span: Duration, report: &mut Report) {
    // What each thread keeps at hand is bounded, and takes its time to fill.
    let (from, warm) = (span / 10, span / 3);
    let of = |from: Duration, what: &dyn Fn(&Sample) -> u64| {
        blocks(samples.iter().filter(|sample| sample.at >= from).map(|sample| (sample.at, what(sample))))
    };
    let said = |from: Duration, what: &dyn Fn(&Answer) -> u64| {
        blocks(answers.iter().filter(|answer| answer.at >= from).map(|answer| (answer.at, what(answer))))
    };
    for (minute, memory) in of(Duration::ZERO, &|sample| sample.usage.anonymous / 1000) {
        report.row([("minute", rounded(minute)), ("memory_kb", memory.into())]);
    }
    let all: [(&str, f64, Points); 7] = [
        ("memory_kb", NOTHING_KB_MIN, of(warm, &|sample| sample.usage.anonymous / 1000)),
        ("rss_kb", NOTHING_KB_MIN, of(warm, &|sample| sample.usage.rss / 1000)),
        ("threads", 0.0, of(from, &|sample| sample.usage.threads)),
        ("descriptors", 0.0, of(from, &|sample| sample.descriptors as u64)),
        ("tasks", 0.0, said(from, &|answer| answer.tasks)),
        ("sessions", 0.0, said(from, &|answer| answer.sessions)),
        ("allocated_kb", NOTHING_KB_MIN, said(warm, &|answer| answer.allocated.unwrap_or(0) / 1000)),
    ];
    for (name, nothing, points) in all {
        let last = points.last().map_or(f64::NAN, |(_, value)| *value);
        report.figure(&format!("{name}_last"), rounded(last));
        let Some(line) = Slope::through(&points) else { continue };
        report.figure(&format!("{name}_per_min"), rounded(line.slope));
        report.figure(&format!("{name}_per_min_low"), rounded(line.low));
        report.figure(&format!("{name}_per_min_high"), rounded(line.high));
        // An interval that holds 0, or growth so slow that a year of it is nothing.
        report.figure(&format!("{name}_grows"), u8::from(line.low > 0.0 && line.slope >= nothing));
    }
    // All that is resident is told as well: pages of the program's file come and go with the machine. And what is allocated:
    // glibc counts among that what threads keep at hand, some 7 kB a minute more at first.
    for name in ["memory_kb", "threads", "descriptors", "tasks", "sessions"] {
        report.bar(&format!("{name}_grows"), Op::Equal, 0.0);
    }
}

/// The middle of each block of time, in minutes.
#[expect(clippy::cast_precision_loss, reason = "kilobytes and counts")]
fn blocks(points: impl Iterator<Item = (Duration, u64)>) -> Points {
    let mut blocks: Vec<(u64, Vec<u64>)> = Vec::new();
    for (at, value) in points {
        let number = at.as_secs() / BLOCK.as_secs();
        match blocks.last_mut() {
            Some((last, values)) if *last == number => values.push(value),
            _ => blocks.push((number, vec![value])),
        }
    }
    let minutes = |number: u64| number as f64 * BLOCK.as_secs_f64() / 60.0;
    blocks.into_iter().map(|(number, values)| (minutes(number), median(values) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_within_a_block_is_no_growth() {
        let points = (0..120).map(|second| (Duration::from_secs(second), 100 + (second % 6) * 50));
        let blocks = blocks(points);
        assert_eq!(blocks.len(), 10);
        assert!(blocks.iter().all(|(_, value)| (*value - blocks[0].1).abs() < 1e-9), "{blocks:?}");
    }
}
