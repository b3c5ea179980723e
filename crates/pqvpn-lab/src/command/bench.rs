// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab bench`: our tunnel beside the bare link, our own ceiling and other tunnels, in the same run, interleaved.

use std::io::{self, Write};
use std::path::PathBuf;

use pqvpn_lab::report::Report;
use pqvpn_lab::topology::Host;

use self::contender::{Contender, Places};
use self::mode::Mode;
use self::scores::Scores;
use self::turn::{Extent, Values};

mod ceiling;
mod contender;
mod echo;
mod figures;
pub(super) mod iperf;
mod mode;
mod nebula;
mod openvpn;
mod ours;
mod scores;
pub(super) mod tools;
mod tunnel;
mod turn;
mod wireguard;

/// Name of the contender a bar is about.
const RIVAL: &str = "boringtun";

/// Who, how long and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each transfer; a turn has seven of them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Rounds; in each one every contender has its turn in every mode.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// One round of one-second transfers: whether it works, not how fast.
    #[arg(long, conflicts_with_all = ["seconds", "repeat"])]
    quick: bool,
    /// Who takes part (ours,raw,ceiling,boringtun,gotatun,wireguard-go,openvpn,nebula); without it, everybody found.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    peers: Vec<String>,
    /// Where peers' programs are looked for first.
    #[arg(long, value_name = "DIR")]
    peer_dir: Option<PathBuf>,
    /// Another build of the daemon (an absolute path), measured beside this one as pqvpn-other.
    #[arg(long, value_name = "PROGRAM")]
    other: Option<PathBuf>,
    /// Modes of the underlay: offloads as the kernel makes them, merging on arrival only, none.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["default", "gro", "off"])]
    modes: Vec<Mode>,
    /// First get the peers that are missing, from Debian (as root) and by cargo.
    #[arg(long)]
    install: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let extent =
        if args.quick { Extent { seconds: 1, pings: 100 } } else { Extent { seconds: args.seconds, pings: 300 } };
    let rounds = if args.quick { 1 } else { args.repeat };
    tools::need_iperf3()?;
    if args.install {
        tools::install_peers(args.peer_dir.as_deref())?;
    }
    let places = Places { peers: args.peer_dir.as_deref(), other: args.other.as_deref() };
    let contenders = contender::all(&args.peers, places)?;
    let modes: Vec<Mode> = Mode::ALL.into_iter().filter(|mode| args.modes.contains(mode)).collect();
    let links = modes.iter().map(|&mode| Ok((mode, mode.pair()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut report = Report::new("bench");
    let mut scores = Scores::default();
    let mut failed = 0_u32;
    for round in 0..rounds {
        for (mode, (one, two)) in &links {
            for contender in &contenders {
                say(&format!("round {}/{rounds}, {}: {}", round + 1, mode.name(), contender.name()));
                let (values, outcome) = turn_of(contender.as_ref(), (one, two), extent);
                scores.add(*mode, contender.name(), round as usize, values);
                if let Err(error) = outcome {
                    // The others' figures are worth having all the same.
                    failed += 1;
                    let trouble = format!("round {}, {}: {}: {error:#}", round + 1, mode.name(), contender.name());
                    say(&trouble);
                    report.figure(&format!("trouble_{failed}"), trouble);
                }
            }
        }
    }
    report.figure("seconds", extent.seconds);
    report.figure("rounds", rounds);
    report.figure("turns_failed", failed);
    describe(&contenders, &mut report);
    scores.rows(&mut report);
    scores.bars(&mut report, &modes);
    Ok(report)
}

fn turn_of(contender: &dyn Contender, hosts: (&Host, &Host), extent: Extent) -> (Values, anyhow::Result<()>) {
    let mut values = Values::new();
    let outcome = turn::take(contender, hosts, extent, &mut values);
    (values, outcome)
}

/// Who took part, and on what machine.
fn describe(contenders: &[Box<dyn Contender>], report: &mut Report) {
    for contender in contenders {
        let version = contender.version().unwrap_or_default();
        let text = format!("{}; {version}", contender.aead());
        report.figure(&format!("contender_{}", contender.name()), text.trim_end_matches("; "));
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    report.figure("cpu", model.unwrap_or("unknown"));
    report.figure("cpus", std::thread::available_parallelism().map_or(0, std::num::NonZero::get));
    report.figure("kernel", read("/proc/sys/kernel/osrelease").trim());
    report.figure("tcp_congestion_control", iperf::CONGESTION_CONTROL);
    report.figure("load_after", read("/proc/loadavg").split(' ').next().unwrap_or_default());
}

/// Progress is for people who wait; a closed standard error changes nothing.
fn say(text: &str) {
    _ = writeln!(io::stderr(), "{text}");
}
