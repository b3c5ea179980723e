// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab nat-kinds`: what each kind of router does, measured with plain sockets, and how far port guessing gets.

use pqvpn_lab::nat::{Guess, Kind, Options, Punch, Site, guess, hairpins, measure, poison, punch};
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{Internet, internet};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::nat_matrix::{Cell, Expected};
use super::seed::Seed;
use super::spread::spread;

/// Sockets that the hard side opens, and ports that the easy side tries.
const GUESSES: (usize, usize) = (256, 1024);

/// How often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Attempts at port guessing.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Every pair of kinds as well: which let plain sockets meet that know where they are seen?
    #[arg(long)]
    punch: bool,
    #[command(flatten)]
    seed: Seed,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("nat-kinds");
    let seed = args.seed.draw(&mut report);
    let mut wrong = 0;
    let ports = Options { ports: Some((20_000, 29_999)), ..Options::default() };
    let hairpin = Options { hairpin: true, ..Options::default() };
    let plain = Kind::ALL.map(|kind| (kind, Options::default(), ""));
    let more = [
        (Kind::Home, ports, "ports 20000-29999"),
        (Kind::Symmetric, ports, "ports 20000-29999"),
        (Kind::FullCone, hairpin, "hairpin"),
        (Kind::AddressRestricted, hairpin, "hairpin"),
        (Kind::PortRestricted, hairpin, "hairpin"),
    ];
    for (kind, options, option) in plain.into_iter().chain(more) {
        wrong += u32::from(!as_its_name_says(kind, &options, option, &mut report)?);
    }
    report.figure("wrong", wrong);
    report.bar("wrong", Op::Equal, 0.0);
    if args.punch {
        punched(&mut report)?;
    }
    let hits = guesses(args.repeat, &mut StdRng::seed_from_u64(seed))?;
    report.figure("guess_sockets", GUESSES.0);
    report.figure("guess_probes", GUESSES.1);
    report.figure("guess_attempts", args.repeat);
    report.figure("guess_hits", hits);
    report.figure("guess_hit_share", f64::from(hits) / f64::from(args.repeat));
    report.bar("guess_hit_share", Op::AtLeast, 0.9);
    Ok(report)
}

/// Measures one kind, and whether it is what it should be.
fn as_its_name_says(kind: Kind, options: &Options, option: &str, report: &mut Report) -> anyhow::Result<bool> {
    let net = internet(3)?;
    let [gateway, one, two] = net.hosts.as_slice() else { anyhow::bail!("three hosts") };
    let mut site = Site::behind(gateway, kind, options, 10)?;
    let (host, second) = (site.host("h1")?, site.host("h1b")?);
    let found = measure(&host, one, two)?;
    let hairpin = hairpins(&host, &second, one)?;
    let [before, stranger, after] = poison(&host, one, two)?;
    let poisoned = kind != Kind::Symmetric && (before != stranger || before != after);
    report.row([
        ("nat", kind.name().into()),
        ("option", option.into()),
        ("mapping", found.mapping.mapping().into()),
        ("filtering", found.filtering.filtering().into()),
        ("keeps_port", found.keeps_port.into()),
        ("can_be_poisoned", poisoned.into()),
        ("hairpin", hairpin.into()),
    ]);
    Ok((found.mapping, found.filtering) == kind.behaviour()
        && poisoned == (kind == Kind::Masquerade)
        && hairpin == options.hairpin
        && found.keeps_port == (kind != Kind::Symmetric && options.ports.is_none()))
}

/// Which pairs meet, with first packets that open their own router's way only: the reference for `nat-matrix`.
fn punched(report: &mut Report) -> anyhow::Result<()> {
    let cells = Cell::all();
    let order: Vec<usize> = (0..cells.len()).collect();
    let mut met = 0;
    let mut surprises = Vec::new();
    for (cell, outcome) in cells.iter().zip(spread(&cells, &order, 2, |cell| meet(cell.0, cell.1))) {
        let outcome = outcome?;
        met += u32::from(outcome);
        if outcome != (cell.expected() == Expected::Direct) {
            surprises.push(format!("{},{}", cell.0, cell.1));
        }
    }
    report.figure("punched", met);
    report.figure("punched_otherwise_than_expected", surprises.len());
    report.figure("surprises", surprises.join(" "));
    report.bar("punched_otherwise_than_expected", Op::Equal, 0.0);
    Ok(())
}

fn meet(first: Kind, second: Kind) -> anyhow::Result<bool> {
    let net = internet(3)?;
    let [one, two, server] = net.hosts.as_slice() else { anyhow::bail!("three hosts") };
    let mut sites =
        [Site::behind(one, first, &Options::default(), 10)?, Site::behind(two, second, &Options::default(), 20)?];
    let ends = [sites[0].host("h1")?, sites[1].host("h2")?];
    // Past their own routers; the internet's own ends them.
    let opener = Some([first.depth() + 1, second.depth() + 1]);
    Ok(punch(&Punch { ends: [&ends[0], &ends[1]], server, opener })?)
}

/// How many of so many attempts get from a home router into a symmetric NAT.
fn guesses(attempts: u32, rng: &mut StdRng) -> anyhow::Result<u32> {
    let Internet { hosts, router: _router } = internet(3)?;
    let [first, second, server] = hosts.as_slice() else { anyhow::bail!("three hosts") };
    let mut hard = Site::behind(first, Kind::Symmetric, &Options::default(), 10)?;
    let mut easy = Site::behind(second, Kind::Home, &Options::default(), 20)?;
    let (inside_hard, inside_easy) = (hard.host("h1")?, easy.host("h2")?);
    let (sockets, probes) = GUESSES;
    let mut hits = 0;
    for _ in 0..attempts {
        hard.forget()?;
        easy.forget()?;
        let attempt = Guess { hard: &inside_hard, easy: &inside_easy, server, sockets, probes };
        hits += u32::from(guess(&attempt, rng)?);
    }
    Ok(hits)
}
