// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-sim`: experiments with thousands of simulated nodes. Exit code 0: passed, 1: a bar was missed, 2: it could not
//! run.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use pqvpn_sim::{
    adversary,
    report::{Op, Report},
    scenario::{self, Options, Scenario},
    seed::Seed,
    whole,
};

/// Nodes of one world. A node takes about 130 kB, and each thread has a world of its own: more would fill the memory of
/// the machines this is meant for.
const NODES: RangeInclusive<usize> = 50..=100_000;
/// Sybils around one key.
const MAX_SYBILS: usize = 1000;

/// Thousands of simulated PQVPN nodes under one virtual clock.
#[derive(Debug, Parser)]
#[command(name = "pqvpn-sim", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON object as the last line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The DHT: lookups among liars, Sybils, poison, churn, partitions.
    Dht(Dht),
    /// Whole nodes: links, membership, paths, sessions and DHT together, with everything going wrong at random.
    Whole(Whole),
}

#[derive(Debug, Args)]
struct Whole {
    /// Worlds.
    #[arg(long, default_value_t = 100)]
    seeds: usize,
    /// Operations of each.
    #[arg(long, default_value_t = 1000)]
    operations: usize,
    /// Seed of the series.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run one world by its own seed, as a failure names it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "seed", "plan"])]
    world: Option<u64>,
    /// Run the operations of a file, as a failure prints them.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed"])]
    plan: Option<std::path::PathBuf>,
    /// How long failures are cut down to what matters, in seconds each.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    minimise: u64,
    /// Worker threads; results do not depend on it.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Args)]
struct Dht {
    /// Run every scenario with the sizes the bars were set for.
    #[arg(long, conflicts_with_all = ["scenario", "nodes", "churn", "attack", "sybils"])]
    suite: bool,
    /// Run one scenario of the suite; without it one point is measured, as the other options say.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Nodes, 50 to 100000; the default is the scenario's own number, and 10000 for a single point.
    #[arg(long)]
    nodes: Option<usize>,
    /// Share of colluding nodes, 0 to 0.9.
    #[arg(long, default_value_t = 0.0)]
    malicious: f64,
    /// Disjoint paths of the asking nodes.
    #[arg(long, default_value_t = 8)]
    paths: usize,
    /// Worlds per point.
    #[arg(long, default_value_t = 30)]
    seeds: usize,
    /// Share of nodes that leaves and is replaced per hour, in per cent.
    #[arg(long, value_name = "PER_HOUR", default_value_t = 0.0)]
    churn: f64,
    /// What the colluders do.
    #[arg(long, value_name = "NAME", default_value = "hijack")]
    attack: String,
    /// Sybils nearest to each key, besides the colluding nodes; at most 1000.
    #[arg(long, default_value_t = 0)]
    sybils: usize,
    /// Seed of everything random; drawn and printed without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Worker threads; results do not depend on it.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nowhere is left to tell of a closed standard error.
            _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<u8> {
    let args = match &cli.command {
        Command::Dht(args) => args,
        Command::Whole(args) => return args.run(cli.json),
    };
    let options = args.options()?;
    let scenarios = args.scenarios()?;
    let name = match (&args.scenario, args.suite) {
        (Some(name), _) => format!("dht-{name}"),
        (None, true) => "dht-suite".to_owned(),
        (None, false) => "dht".to_owned(),
    };
    let mut report = Report::new(&name);
    report.figure("seed", options.seed.0);
    report.figure("seeds", options.seeds);
    let began = Instant::now();
    for scenario in scenarios {
        let part = Instant::now();
        scenario::run(&*scenario, &options, &mut report);
        if args.suite {
            report
                .figure(&format!("{}_wall_s", scenario.name()), pqvpn_sim::stats::round(part.elapsed().as_secs_f64()));
            // Progress is for people who wait; nothing is lost when nobody reads it.
            _ = writeln!(io::stderr(), "{}: {:.0} s", scenario.name(), part.elapsed().as_secs_f64());
        }
    }
    report.figure("wall_s", pqvpn_sim::stats::round(began.elapsed().as_secs_f64()));
    if args.suite {
        report.bar("wall_s", Op::AtMost, 600.0);
    }
    report.write(&mut io::stdout().lock(), cli.json)?;
    Ok(report.exit_code())
}

impl Whole {
    fn run(&self, json: bool) -> anyhow::Result<u8> {
        let began = Instant::now();
        let mut report = Report::new("whole");
        let campaign = match self.one()? {
            Some(plan) => {
                let outcome = whole::run(&plan);
                self.tell(0, &plan, &outcome);
                let failed = (!outcome.violations.is_empty()).then(|| (plan.seed, outcome.clone()));
                whole::Campaign {
                    runs: 1,
                    operations: outcome.done as u64,
                    virtual_s: outcome.lasted.as_secs(),
                    counts: outcome.counts,
                    failed: failed.into_iter().collect(),
                }
            }
            None => {
                let tell =
                    |number: usize, plan: &whole::Plan, outcome: &whole::Outcome| self.tell(number, plan, outcome);
                whole::campaign(Seed(self.seed), self.seeds, self.operations, self.threads, &tell)
            }
        };
        report.figure("seeds", campaign.runs);
        report.figure("operations", campaign.operations);
        report.figure("virtual_s", campaign.virtual_s);
        for (name, count) in
            ["sent", "delivered", "datagrams", "seals", "sessions", "links", "slept"].iter().zip(campaign.counts)
        {
            report.figure(name, count);
        }
        report.figure("violations", campaign.failed.len());
        report.figure("wall_s", pqvpn_sim::stats::round(began.elapsed().as_secs_f64()));
        report.bar("violations", Op::AtMost, 0.0);
        report.write(&mut io::stdout().lock(), json)?;
        Ok(report.exit_code())
    }

    fn one(&self) -> anyhow::Result<Option<whole::Plan>> {
        if let Some(file) = &self.plan {
            return Ok(Some(serde_json::from_slice(&std::fs::read(file)?)?));
        }
        Ok(self.world.map(|seed| whole::Plan::of(Seed(seed), self.operations)))
    }

    /// Says what came of a world; of a failing one also how to see it again.
    fn tell(&self, number: usize, plan: &whole::Plan, outcome: &whole::Outcome) {
        let mut told = String::new();
        if number.is_multiple_of(50) {
            told = format!(
                "world {number}: {} operations, {} s, hash {:016x}\n",
                outcome.done,
                outcome.lasted.as_secs(),
                outcome.hash
            );
        }
        if let Some(first) = outcome.violations.first() {
            let cut = whole::Plan { operations: plan.operations[..outcome.done].to_vec(), ..plan.clone() };
            let least = whole::minimise(&cut, first.rule, std::time::Duration::from_secs(self.minimise));
            told = format!(
                "world {} with {} nodes, operation {}: {}: {}\nagain: pqvpn-sim whole --world {} --operations {}\n\
                 or, cut down to {} operations, with --plan: {}\n",
                plan.seed,
                plan.nodes,
                outcome.done,
                first.rule,
                first.what,
                plan.seed,
                plan.operations.len(),
                least.operations.len(),
                serde_json::to_string(&least).unwrap_or_default(),
            );
        }
        // Progress is for people who wait; nothing is lost when nobody reads it.
        _ = io::stderr().write_all(told.as_bytes());
    }
}

impl Dht {
    fn options(&self) -> anyhow::Result<Options> {
        if !(0.0..=0.9).contains(&self.malicious) {
            bail!("--malicious {} is not a share from 0 to 0.9", self.malicious);
        }
        if !(0.0..=1000.0).contains(&self.churn) {
            bail!("--churn {} is not a number of per cent from 0 to 1000", self.churn);
        }
        if !(1..=32).contains(&self.paths) || self.seeds == 0 {
            bail!("--paths is 1 to 32, --seeds at least 1");
        }
        if let Some(nodes) = self.nodes.filter(|nodes| !NODES.contains(nodes)) {
            bail!("--nodes {nodes} is not a number from {} to {}", NODES.start(), NODES.end());
        }
        if self.sybils > MAX_SYBILS {
            bail!("--sybils {} is more than {MAX_SYBILS}", self.sybils);
        }
        if !adversary::STRATEGIES.contains(&self.attack.as_str()) {
            bail!("--attack {:?} is not one of {}", self.attack, adversary::STRATEGIES.join(", "));
        }
        Ok(Options {
            nodes: self.nodes,
            malicious: self.malicious,
            paths: self.paths,
            seeds: self.seeds,
            seed: Seed(self.seed.unwrap_or_else(rand::random)),
            churn: self.churn / 100.0,
            attack: self.attack.clone(),
            sybils: self.sybils,
            threads: self.threads,
        })
    }

    fn scenarios(&self) -> anyhow::Result<Vec<Box<dyn Scenario>>> {
        if self.suite {
            return Ok(scenario::all());
        }
        let Some(wanted) = &self.scenario else { return Ok(vec![scenario::single()]) };
        let (found, others): (Vec<_>, Vec<_>) = scenario::all().into_iter().partition(|one| one.name() == wanted);
        if found.is_empty() {
            let names: Vec<_> = others.iter().map(|one| one.name()).collect();
            bail!("--scenario {wanted:?} is not one of {}", names.join(", "));
        }
        Ok(found)
    }
}
