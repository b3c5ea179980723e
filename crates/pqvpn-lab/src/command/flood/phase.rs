// SPDX-License-Identifier: MIT OR Apache-2.0
//! One kind of flood, and what came of it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::report::{Op, Report};
use serde_json::{Value, json};

use super::rig::{INTERFACE, NEWCOMER, Rig};
use super::sample::{Sample, Sampler, median};
use crate::command::network::{rounded, say};
use crate::command::node::PATIENCE;

/// How often the transfer is looked at before the flood.
const BEFORE: usize = 5;
/// How often it is looked at with the flood and without it, by turns.
const TURNS: u32 = 9;
/// How long each of these looks takes, of which the first part is left to TCP to find its pace.
const TURN: Duration = Duration::from_millis(1500);
const PACING: Duration = Duration::from_millis(300);
/// Time in which newcomers come, one after the other.
const COMING: Duration = Duration::from_secs(3);
/// From the flood's begin to the first newcomer.
const LEAD: Duration = Duration::from_secs(1);
/// From a session's begin to its second set of keys (`pqvpn_dataplane::session::PHASE_TIME`), which is memory of newcomers.
const SECOND_KEYS: Duration = Duration::from_secs(16);
/// For how long the hub's memory is looked at, at least.
const LOOK: Duration = Duration::from_secs(9);
/// Time between two looks at the hub's memory.
const PACE: Duration = Duration::from_millis(100);
/// Seconds of each flood before anything is measured.
const WARMING: u32 = 8;
/// How many times as fast it is then: moments more crowded than all that come later.
const HARDER: u32 = 2;
/// Memory that comes and goes without being a leak: less than what one handshake in a hundred would keep.
const NOISE_KB: f64 = 256.0;

/// What is sent.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    /// As the stranger calls it.
    pub(super) kind: &'static str,
    pub(super) sources: u32,
    pub(super) rate: u32,
    pub(super) guesses_index: bool,
    /// How many times as long as others it takes to fill what it can fill: places, and the memory each leaves to the next.
    longer: u32,
    /// Bytes that may come back for each that was sent, by the worst source; `None` where it has proven its address.
    amplifies: Option<f64>,
}

const fn phase(name: &'static str, kind: &'static str, sources: u32, rate: u32, amplifies: Option<f64>) -> Phase {
    Phase { name, kind, sources, rate, guesses_index: false, longer: 1, amplifies }
}

/// All of them.
pub(super) const ALL: [Phase; 5] = [
    phase("one_source", "initials", 1, 20_000, Some(3.0)),
    phase("spoofed", "initials", 1 << 16, 20_000, Some(3.0)),
    Phase { guesses_index: true, ..phase("garbage", "garbage", 64, 50_000, Some(0.0)) },
    Phase { longer: 9, ..phase("half_open", "half-open", 1024, 1_000, None) },
    phase("bait", "bait", 1024, 20_000, Some(0.0)),
];

/// What came of it.
pub(super) struct Outcome {
    /// Before the flood, Gbit/s.
    before: Vec<f64>,
    /// With the flood and without it, by turns.
    turns: Vec<[f64; 2]>,
    pub(super) tried: u32,
    pub(super) answered: u32,
    newcomers: Value,
    stranger: Value,
    /// What the hub has counted since its start.
    hub: Value,
    samples: Vec<Sample>,
    hub_cpu: f64,
    stranger_cpu: f64,
}

impl Phase {
    /// Has the hub touch the memory that its most crowded moment needs: what it touches once stays with it.
    pub(super) fn warm_up(&self, rig: &Rig, times: u32) -> anyhow::Result<()> {
        if self.longer > 1 {
            // It takes its time for that, and what it has filled is given back in somebody else's phase.
            return Ok(());
        }
        let (stranger, start) = rig.stranger(self, WARMING, times * HARDER)?;
        fs::write(&start, [])?;
        rig.course(WARMING).tcp(1, false)?;
        stranger.wait(PATIENCE)?;
        // The next stranger waits for the same file.
        Ok(fs::remove_file(&start)?)
    }

    pub(super) fn run(&self, rig: &mut Rig, seconds: u32, newcomers: u16, times: u32) -> anyhow::Result<Outcome> {
        // Nobody gets in because the flood is over.
        let until_last = LEAD + COMING + NEWCOMER.max(SECOND_KEYS);
        let seconds = (seconds * self.longer).max(u32::try_from((until_last + LOOK).as_secs())?);
        let (turns, looks) = (u32::try_from((TURN * 2 * TURNS).as_secs())? + 1, u32::try_from(BEFORE)? * 2);
        let (stranger, start) = rig.stranger(self, seconds + turns, times)?;
        let pid = rig.daemon.pid();
        // The transfer borrows the rig's hosts, the newcomers its crowd.
        let (peer, hub, target) = (rig.course(0).one.clone(), rig.course(0).two.clone(), rig.course(0).target);
        let course =
            crate::command::bench::iperf::Course { one: &peer, two: &hub, target, seconds: looks + seconds + turns };
        let gap = COMING / u32::from(newcomers);
        let span = Duration::from_secs(seconds.into());
        let (_, (before, came, samples, hub_cpu, stranger_cpu, turns)) = course.tcp_beside(|_| {
            let quiet = (0..BEFORE).map(|_| look(pid)).collect::<anyhow::Result<Vec<_>>>()?;
            let begun = Instant::now();
            fs::write(&start, [])?;
            let before = [rig.daemon.usage()?.cpu, stranger.usage()?.cpu];
            thread::sleep(LEAD);
            let came = rig.newcomers(newcomers, gap)?;
            // Half of the time to fill what it can fill, and for what newcomers take.
            thread::sleep((span / 2).max(until_last).saturating_sub(begun.elapsed()));
            let sampler = Sampler::start(pid, PACE);
            thread::sleep(span.saturating_sub(begun.elapsed() + PACE));
            let samples = sampler.finish();
            let took = begun.elapsed().as_secs_f64();
            let after = [rig.daemon.usage()?.cpu, stranger.usage()?.cpu];
            let share = |which: usize| after[which].saturating_sub(before[which]).as_secs_f64() * 100.0 / took;
            Ok((quiet, came, samples, share(0), share(1), by_turns(pid, &start)?))
        })?;
        let stranger = stranger.wait(PATIENCE)?;
        let told = stranger.stdout.lines().last().unwrap_or_default();
        let told = serde_json::from_str(told).with_context(|| format!("the stranger said: {}", stranger.stderr))?;
        let hub = rig.hub.json(&["status"])?;
        let answered = came["answered"].as_u64().unwrap_or_default();
        Ok(Outcome {
            before,
            turns,
            tried: newcomers.into(),
            answered: u32::try_from(answered)?,
            newcomers: came,
            stranger: told,
            hub: json!({ "links": hub["links"], "ring_full": hub["drops"]["guest_ring_full"], "lost_events": hub["lost_events"] }),
            samples,
            hub_cpu,
            stranger_cpu,
        })
    }
}

/// What arrives at a daemon's interface, Gbit/s.
fn look(pid: u32) -> anyhow::Result<f64> {
    thread::sleep(PACING);
    let (begun, before) = (Instant::now(), received(pid)?);
    thread::sleep(TURN - PACING);
    #[expect(clippy::cast_precision_loss, reason = "gigabytes")]
    Ok((received(pid)? - before) as f64 * 8e-9 / begun.elapsed().as_secs_f64())
}

/// That with the flood and without it, by turns. The flood is one while there is the file.
fn by_turns(pid: u32, start: &Path) -> anyhow::Result<Vec<[f64; 2]>> {
    let turn = |_| {
        fs::write(start, [])?;
        let with = look(pid)?;
        fs::remove_file(start)?;
        Ok([with, look(pid)?])
    };
    (0..TURNS).map(turn).collect()
}

/// Bytes that a daemon has handed to its host through its interface (proc_pid_net(5): `dev`).
fn received(pid: u32) -> anyhow::Result<u64> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    let mut rows = table.lines().filter_map(|row| row.trim().strip_prefix(INTERFACE)?.strip_prefix(':'));
    let row = rows.next().context("the daemon has an interface")?;
    Ok(row.split_whitespace().next().context("bytes come first")?.parse()?)
}

impl Outcome {
    /// Throughput with the flood and without it, Gbit/s, and the ratios of the turns: the least, the one in the middle, the most.
    /// What a flood leaves behind, like handshakes that are half-open, burdens what comes between: that one is held against
    /// what was before.
    fn throughput(&self, phase: &Phase) -> ([f64; 2], [f64; 3]) {
        let ordered = |all: Vec<f64>| {
            let mut all = all;
            all.sort_by(f64::total_cmp);
            all
        };
        let middle = |all: &[f64]| all.get(all.len() / 2).copied().unwrap_or_default();
        let column = |which: usize| ordered(self.turns.iter().map(|turn| turn[which]).collect());
        let before = middle(&ordered(self.before.clone()));
        let quiet = |between: f64| if phase.longer > 1 { before } else { between };
        let ratios = ordered(self.turns.iter().map(|[with, without]| with / quiet(*without)).collect());
        let ends = [ratios.first(), ratios.last()].map(|end| end.copied().unwrap_or_default());
        ([middle(&column(0)), quiet(middle(&column(1)))], [ends[0], middle(&ratios), ends[1]])
    }

    /// Change of the memory between the first and the last third, in kB.
    #[expect(clippy::cast_precision_loss, reason = "kilobytes")]
    fn growth_kb(&self) -> f64 {
        let third = (self.samples.len() / 3).max(1);
        let rss =
            |samples: &[Sample]| median(samples.iter().map(|sample| sample.usage.anonymous).collect()) as f64 / 1e3;
        rss(&self.samples[self.samples.len().saturating_sub(third)..])
            - rss(&self.samples[..third.min(self.samples.len())])
    }

    /// How much the least of something counted has grown between the first and the last third: a thread of a pool that
    /// comes and goes is no growth, one that stays is.
    fn growth(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        let third = (self.samples.len() / 3).max(1);
        let least = |samples: &[Sample]| samples.iter().map(&of).min();
        let (first, last) = (self.samples.chunks(third).next(), self.samples.rchunks(third).next());
        first.zip(last).and_then(|(first, last)| Some(least(last)?.saturating_sub(least(first)?))).unwrap_or(u64::MAX)
    }

    pub(super) fn tell(&self, phase: &Phase, report: &mut Report) {
        let name = phase.name;
        let ([with, without], [least, middle, most]) = self.throughput(phase);
        say(&format!("{name}: {with:.2} of {without:.2} Gbit/s, {least:.2} to {most:.2}; new: {}", self.newcomers));
        say(&format!("{name}: {}; the hub: {}", self.stranger, self.hub));
        let wire = &self.stranger["wire"];
        let per_s = wire["sent"].as_f64().unwrap_or_default() / self.stranger["seconds"].as_f64().unwrap_or(f64::NAN);
        let last = self.samples.last();
        for (figure, value) in [
            ("sent_per_s", rounded(per_s)),
            ("throughput_ratio", rounded(middle)),
            ("throughput_ratio_least", rounded(least)),
            ("throughput_ratio_most", rounded(most)),
            ("gbit_s", rounded(with)),
            ("quiet_gbit_s", rounded(without)),
            ("new_ok", self.answered.into()),
            ("new_half_ms", self.newcomers["half_ms"].clone()),
            ("new_last_ms", self.newcomers["last_ms"].clone()),
            ("rss_kb", last.map_or(0, |sample| sample.usage.rss / 1000).into()),
            ("memory_kb", last.map_or(0, |sample| sample.usage.anonymous / 1000).into()),
            ("memory_growth_kb", rounded(self.growth_kb())),
            ("threads_growth", self.growth(|sample| sample.usage.threads).into()),
            ("descriptors_growth", self.growth(|sample| sample.descriptors as u64).into()),
            ("worst_amplification", wire["worst_ratio"].clone()),
            ("amplification", wire["ratio"].clone()),
            ("hub_cpu_percent", rounded(self.hub_cpu)),
            ("stranger_cpu_percent", rounded(self.stranger_cpu)),
        ] {
            report.figure(&format!("{name}_{figure}"), value);
        }
        if let Some(retried) = self.stranger["more"]["retried"].as_u64() {
            report.figure(&format!("{name}_proven"), retried);
        }
    }

    pub(super) fn bars(&self, phase: &Phase, times: u32, report: &mut Report) {
        let name = |figure: &str| format!("{}_{figure}", phase.name);
        // Who does not get to send floods nobody.
        report.bar(&name("sent_per_s"), Op::AtLeast, f64::from(phase.rate * times) * 0.9);
        report.bar(&name("throughput_ratio"), Op::AtLeast, 0.8);
        report.bar(&name("memory_growth_kb"), Op::AtMost, NOISE_KB);
        report.bar(&name("threads_growth"), Op::Equal, 0.0);
        report.bar(&name("descriptors_growth"), Op::Equal, 0.0);
        if let Some(most) = phase.amplifies {
            report.bar(&name("worst_amplification"), Op::AtMost, most);
        }
    }
}
