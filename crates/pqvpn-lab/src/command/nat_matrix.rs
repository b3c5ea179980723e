// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab nat-matrix`: two members behind every pair of NAT kinds, a third that relays: how do they meet, how soon?

use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use pqvpn_lab::nat::{Dependence, Kind, NatError};
use pqvpn_lab::report::{Op, Report};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::bench::tools;
use super::network::{LOOK, quantile, say, sorted};
use super::seed::Seed;
use super::spread::spread;
use super::trio::{Plan, Seen, Trio};

/// How long the first packet may take until the pair counts as cut off.
const FIRST: Duration = Duration::from_secs(10);

/// Which cells, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the cell with this NAT before the one who begins and that one before the other, like `home,symmetric`;
    /// may be given several times [default: all 49].
    #[arg(long, value_name = "A,B")]
    nat: Vec<Cell>,
    /// Meetings in each cell, each with daemons and routers that start anew.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Cells at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Seconds to wait for a direct path.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=120))]
    window: u8,
    /// The one who begins is told the outside address of the other's router.
    #[arg(long)]
    pinned: bool,
    /// Milliseconds from one host to the other and back; half of it to the relay.
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u16).range(0..=2000))]
    rtt: u16,
    #[command(flatten)]
    seed: Seed,
}

/// Who is behind what: the one who begins, and the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell(pub(super) Kind, pub(super) Kind);

impl FromStr for Cell {
    type Err = NatError;

    fn from_str(text: &str) -> Result<Self, NatError> {
        let (first, second) = text.split_once(',').ok_or_else(|| NatError::UnknownKind(text.to_owned()))?;
        Ok(Self(first.trim().parse()?, second.trim().parse()?))
    }
}

/// What a cell has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Direct, always.
    Direct,
    /// Direct nearly always, by guessing ports.
    Guessed,
    /// Relayed.
    Relayed,
}

impl Cell {
    /// All 49.
    pub(super) fn all() -> Vec<Self> {
        Kind::ALL.into_iter().flat_map(|first| Kind::ALL.map(|second| Self(first, second))).collect()
    }

    /// The matrix of testing.md 3. What it shows as failing there for plain `masquerade` was poisoned by a probe that
    /// came too early; who does not send one meets.
    pub(super) fn expected(self) -> Expected {
        let kinds = [self.0.behaviour(), self.1.behaviour()];
        let symmetric = kinds.map(|(mapping, _)| mapping == Dependence::AddressAndPort);
        let restricted = kinds.map(|(_, filtering)| filtering == Dependence::AddressAndPort);
        match (symmetric, restricted) {
            ([true, true], _) => Expected::Relayed,
            ([true, false], [_, true]) | ([false, true], [true, _]) => Expected::Guessed,
            _ => Expected::Direct,
        }
    }
}

impl Expected {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Guessed => "direct by guessing",
            Self::Relayed => "relay",
        }
    }
}

/// One meeting.
#[derive(Debug, Default)]
struct Meeting {
    /// Seconds to the first packet; none came without.
    first: Option<f64>,
    /// Seconds to a direct path.
    direct: Option<f64>,
    /// Whether a relay was used in the end.
    relayed: bool,
    why: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("nat-matrix");
    let seed = args.seed.draw(&mut report);
    let program = tools::pqvpn()?;
    let cells = if args.nat.is_empty() { Cell::all() } else { args.nat.clone() };
    let results = in_turn(&program, &cells, args, &mut StdRng::seed_from_u64(seed));
    tell(&cells, &results, args, &mut report);
    Ok(report)
}

/// Runs the cells, several at a time, in random order so that slow moments of the machine hit no row in particular.
fn in_turn(program: &Path, cells: &[Cell], args: &Args, rng: &mut StdRng) -> Vec<Vec<Meeting>> {
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.shuffle(rng);
    spread(cells, &order, args.jobs, |cell| one_cell(program, *cell, args))
}

/// All meetings of a cell. What could not happen counts as failed: a cell is never left out.
fn one_cell(program: &Path, cell: Cell, args: &Args) -> Vec<Meeting> {
    let mut meetings = Vec::new();
    let mut happen = || -> anyhow::Result<()> {
        let round_trip = Duration::from_millis(args.rtt.into());
        let plan = Plan { pinned: args.pinned, round_trip, ..Plan::new(program, Some([cell.0, cell.1])) };
        let mut trio = Trio::build(&plan)?;
        trio.found()?;
        for _ in 0..args.repeat {
            trio.restart()?;
            meetings.push(meet(&trio, Duration::from_secs(args.window.into()))?);
        }
        trio.stop()
    };
    let trouble = happen().err().map(|error| format!("{error:#}"));
    if let Some(why) = trouble {
        say(&format!("{} and {}: {why}", cell.0, cell.1));
        while meetings.len() < args.repeat as usize {
            meetings.push(Meeting { why: why.clone(), ..Meeting::default() });
        }
    }
    let (direct, relayed) = (count(&meetings, Meeting::is_direct), count(&meetings, Meeting::is_relayed));
    say(&format!("{} and {}: {direct} direct, {relayed} relayed of {}", cell.0, cell.1, args.repeat));
    meetings
}

/// From the first demand until both ends are in direct touch, or the time is up.
fn meet(trio: &Trio, window: Duration) -> anyhow::Result<Meeting> {
    let start = Instant::now();
    let mut meeting = Meeting::default();
    match trio.first_packet(FIRST) {
        Ok(first) => meeting.first = Some(first.as_secs_f64()),
        Err(error) => {
            meeting.why = trio.seen(0).map(|seen| seen.why).unwrap_or_default();
            if meeting.why.is_empty() {
                meeting.why = reason(&format!("{error:#}"));
            }
            return Ok(meeting);
        }
    }
    let mut seen = Seen::default();
    while start.elapsed() < window.max(Duration::from_secs_f64(meeting.first.unwrap_or(0.0))) || seen.kind.is_empty() {
        seen = trio.seen(0)?;
        if seen.is_direct() && trio.seen(1)?.is_direct() {
            meeting.direct = Some(start.elapsed().as_secs_f64());
            break;
        }
        // The demand goes on. What is lost while paths change is looked at by `recover`.
        _ = trio.ends[0].ping(&trio.ends[1].name, LOOK * 2);
        if seen.kind.is_empty() && start.elapsed() > window * 2 {
            break;
        }
        thread::sleep(LOOK);
    }
    meeting.relayed = meeting.direct.is_none() && seen.kind == "relay";
    meeting.why = seen.why;
    Ok(meeting)
}

/// The reason in what a verb says when it fails, or all it says.
fn reason(said: &str) -> String {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("why: "));
    line.unwrap_or(said).to_owned()
}

impl Meeting {
    const fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    const fn is_relayed(&self) -> bool {
        self.relayed
    }

    const fn is_failed(&self) -> bool {
        !self.is_direct() && !self.is_relayed()
    }
}

fn count(meetings: &[Meeting], what: fn(&Meeting) -> bool) -> usize {
    meetings.iter().filter(|meeting| what(meeting)).count()
}

/// Rows, figures and bars.
fn tell(cells: &[Cell], results: &[Vec<Meeting>], args: &Args, report: &mut Report) {
    for (cell, meetings) in cells.iter().zip(results) {
        row(*cell, meetings, report);
    }
    let of = |expected: Expected| {
        let cells = cells.iter().zip(results).filter(move |(cell, _)| cell.expected() == expected);
        cells.flat_map(|(_, meetings)| meetings)
    };
    let all = || results.iter().flatten();
    report.figure("cells", cells.len());
    report.figure("repeat", args.repeat);
    report.figure("rtt_ms", args.rtt);
    report.figure("fail", all().filter(|one| one.is_failed()).count());
    report.bar("fail", Op::Equal, 0.0);
    report.figure("punchable_not_direct", of(Expected::Direct).filter(|one| !one.is_direct()).count());
    report.bar("punchable_not_direct", Op::Equal, 0.0);
    let (guessed, tried) = (of(Expected::Guessed).filter(|one| one.is_direct()).count(), of(Expected::Guessed).count());
    if tried > 0 {
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        report.figure("guessed_share", guessed as f64 / tried as f64);
        report.bar("guessed_share", Op::AtLeast, 0.9);
    }
    report.figure("both_symmetric_not_relayed", of(Expected::Relayed).filter(|one| !one.is_relayed()).count());
    report.bar("both_symmetric_not_relayed", Op::Equal, 0.0);
    let first = sorted(all().filter_map(|one| one.first).collect());
    let direct = sorted(all().filter_map(|one| one.direct).collect());
    for (name, values) in [("first", &first), ("direct", &direct)] {
        report.figure(&format!("{name}_p50_s"), quantile(values, 0.5));
        report.figure(&format!("{name}_p95_s"), quantile(values, 0.95));
    }
    report.bar("first_p95_s", Op::Below, 1.0);
    if cells.iter().any(|cell| cell.expected() != Expected::Relayed) {
        report.bar("direct_p95_s", Op::Below, 3.0);
    }
}

fn row(cell: Cell, meetings: &[Meeting], report: &mut Report) {
    let first = sorted(meetings.iter().filter_map(|one| one.first).collect());
    let direct = sorted(meetings.iter().filter_map(|one| one.direct).collect());
    // Of those that are not as they should be, if there are any: that is what somebody will ask for.
    let odd = meetings.iter().find(|one| one.is_failed()).or_else(|| meetings.iter().find(|one| !one.is_direct()));
    report.row([
        ("from", cell.0.name().into()),
        ("to", cell.1.name().into()),
        ("expected", cell.expected().name().into()),
        ("n", meetings.len().into()),
        ("direct", count(meetings, Meeting::is_direct).into()),
        ("relay", count(meetings, Meeting::is_relayed).into()),
        ("fail", count(meetings, Meeting::is_failed).into()),
        ("first_p50_s", quantile(&first, 0.5)),
        ("first_p95_s", quantile(&first, 0.95)),
        ("direct_p50_s", quantile(&direct, 0.5)),
        ("direct_p95_s", quantile(&direct, 0.95)),
        ("why", odd.or(meetings.last()).map(|one| one.why.clone()).into()),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_matrix_is_the_published_one() {
        let count = |expected| Cell::all().into_iter().filter(|cell| cell.expected() == expected).count();
        assert_eq!(Cell::all().len(), 49);
        assert_eq!(count(Expected::Relayed), 1);
        // Symmetric against port-restricted, masquerade, home and double, both ways.
        assert_eq!(count(Expected::Guessed), 8);
        assert_eq!(Cell(Kind::Symmetric, Kind::AddressRestricted).expected(), Expected::Direct);
        assert_eq!(Cell(Kind::Home, Kind::Symmetric).expected(), Expected::Guessed);
        assert_eq!(Cell(Kind::Masquerade, Kind::Masquerade).expected(), Expected::Direct);
    }

    #[test]
    fn reasons_are_found() {
        assert_eq!(reason("error: no pong\n  why: nobody is there\n  try: later"), "nobody is there");
        assert_eq!(reason("something else"), "something else");
    }

    #[test]
    fn cells_are_read() {
        assert_eq!("home, symmetric".parse::<Cell>().unwrap(), Cell(Kind::Home, Kind::Symmetric));
        assert!("home".parse::<Cell>().is_err());
        assert!("home,cone".parse::<Cell>().is_err());
    }
}
