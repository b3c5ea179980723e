// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tasks around the build: `cargo xtask test` runs every test there is, and says what it did not run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

mod fuzz;
mod lab;
mod lane;
mod packages;
mod release;
mod sbom;
mod unit;

use std::{env, process::ExitCode, time::Instant};

use anyhow::{Result, bail};
use lane::{LANES, Lane, Tally};

const USAGE: &str = "\
cargo xtask test [LANE..]   run the usual lanes, or the named ones (also: --lane LANE|LANE; usual: all of those)
cargo xtask packages        install the Debian packages the tests need (as root)
cargo xtask release         build a release that is the same wherever it is built
cargo xtask reproduce       build it in two places and compare
cargo xtask sbom            write its bill of materials (CycloneDX)

Lanes: fmt clippy docs deny unit-file unit netns, and fuzz, sanitize, crash, flood and soak where they are named";

/// Stands for the lanes that are run where none is named.
const USUAL: &str = "usual";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, lanes)) if task == "test" => test(&named(lanes)),
        Some((task, [])) if task == "packages" => packages::install().map(|missing| missing.is_empty()),
        Some((task, [])) if task == "release" => release::release().map(|()| true),
        Some((task, [])) if task == "reproduce" => release::reproduce(),
        Some((task, [])) if task == "sbom" => sbom::write().map(|()| true),
        _ => {
            println!("{USAGE}");
            bail!("no such task");
        }
    }
}

/// The names of lanes, also where they come as `--lane a|b`.
fn named(arguments: &[String]) -> Vec<String> {
    let arguments = arguments.iter().filter(|argument| *argument != "--lane");
    let bare = arguments.map(|argument| argument.strip_prefix("--lane=").unwrap_or(argument));
    bare.flat_map(|argument| argument.split('|')).map(str::to_owned).collect()
}

fn test(names: &[String]) -> Result<bool> {
    let is_known = |name: &String| name == USUAL || LANES.iter().any(|lane| lane.name == name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        bail!("no lane is called {unknown}\n{USAGE}");
    }
    let all_usual = names.is_empty() || names.iter().any(|name| name == USUAL);
    let is_chosen = |lane: &&Lane| (all_usual && lane.usual) || names.iter().any(|name| name == lane.name);
    let chosen: Vec<&Lane> = LANES.iter().filter(is_chosen).collect();
    let mut tally = Tally::default();
    if chosen.iter().any(|lane| lane.needs_packages) {
        tally.skips.extend(packages::install()?.into_iter().map(|package| format!("package {package} is missing")));
    }
    let (mut took, mut ahead) = (Vec::new(), None);
    let is_chosen = |name: &str| chosen.iter().any(|lane| lane.name == name);
    for lane in &chosen {
        println!("\n== {} ==", lane.name);
        let started = Instant::now();
        match lane.name {
            // Its tests mostly wait, and a machine of two processors builds the targets for some minutes.
            "netns" if is_chosen("fuzz") => ahead = fuzz::Ahead::begin(),
            _ => drop(ahead.take()),
        }
        lane.run(&mut tally)?;
        took.push((lane.name, started.elapsed().as_secs()));
    }
    println!();
    for (lane, seconds) in took {
        println!("{lane:10} {seconds:5} s");
    }
    for reason in &tally.skips {
        println!("skipped: {reason}");
    }
    for line in &tally.said {
        println!("failed: {line}");
    }
    for failure in &tally.failures {
        println!("FAILED: {failure}");
    }
    // A skip is honest on a laptop and a hole in CI.
    let strict = env::var_os("CI").is_some() && !tally.skips.is_empty();
    if strict {
        println!("FAILED: CI may skip nothing");
        tally.failed += 1;
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skips.len());
    Ok(tally.failed == 0)
}
