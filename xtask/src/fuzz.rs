// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lane `fuzz`: builds the targets of `fuzz/` once and runs each for a while, as many at a time as there are processors.
//!
//! Without nightly and without cargo-fuzz: coverage counters come from stable flags of the compiler, and its own AddressSanitizer
//! needs no more than `RUSTC_BOOTSTRAP`. So what is fuzzed is what the project's pinned compiler makes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::lane::Tally;

/// What strangers' bytes reach first, and what decides about a packet: these run for [`SECONDS`].
const EXPOSED: [&str; 12] = [
    "datagrams",
    "segment",
    "coalesce",
    "frame",
    "envelope_request",
    "envelope_response",
    "net_request",
    "net_response",
    "control_socket",
    "config_toml",
    "network_store",
    "ratchet",
];
/// Seconds of each of them, unless `PQVPN_FUZZ_SECONDS` says otherwise; the other targets get a twentieth.
const SECONDS: u64 = 60;
const OTHERS: u64 = 20;
/// What cargo-fuzz sets, too: counters at every edge, comparisons traced, and the checks of a debug build.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    --cfg fuzzing -Cdebug-assertions -Coverflow-checks -Zsanitizer=address";
/// One input: seconds, MiB of one allocation, MiB in all.
const LIMITS: [&str; 3] = ["-timeout=60", "-malloc_limit_mb=256", "-rss_limit_mb=1536"];

/// What a run of one target came to.
struct Outcome {
    target: String,
    executions: u64,
    edges: u64,
    took: Duration,
    /// What it left, where it found something.
    fault: Option<String>,
}

/// Runs every target, or those named in `PQVPN_FUZZ_TARGETS`.
///
/// # Errors
/// The system refuses; what a target finds is counted.
pub(crate) fn run(tally: &mut Tally) -> Result<()> {
    let seconds = env::var("PQVPN_FUZZ_SECONDS").ok().map(|text| text.parse()).transpose();
    let seconds: u64 = seconds.context("PQVPN_FUZZ_SECONDS is no number")?.unwrap_or(SECONDS);
    let root = root();
    let targets = targets(&root)?;
    let started = Instant::now();
    let Some(bin) = build(&root)? else {
        tally.failed += 1;
        tally.failures.push("lane fuzz: the targets do not build".to_owned());
        return Ok(());
    };
    println!("{} targets built in {} s", targets.len(), started.elapsed().as_secs());
    let (queue, outcomes) = (Mutex::new(targets.into_iter()), Mutex::new(Vec::new()));
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(target) = next(&queue) {
                    let outcome = fuzz(&root, &bin, target, seconds);
                    outcomes.lock().expect("no thread panics").push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics").into_iter().collect::<Result<Vec<_>>>()?;
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    report(&outcomes, tally);
    Ok(())
}

fn next(queue: &Mutex<impl Iterator<Item = String>>) -> Option<String> {
    queue.lock().expect("no thread panics").next()
}

/// The names of the targets, those that run longest first.
fn targets(root: &Path) -> Result<Vec<String>> {
    let wanted = env::var("PQVPN_FUZZ_TARGETS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    let mut names = Vec::new();
    for file in fs::read_dir(root.join("fuzz_targets")).context("no fuzz targets")? {
        let name = file?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        names.extend(name.filter(|name| wanted.is_empty() || wanted.contains(&name.as_str())));
    }
    names.sort_by_key(|name| (!EXPOSED.contains(&name.as_str()), name.clone()));
    Ok(names)
}

/// A build of the targets that takes what other lanes leave of the processors.
pub(crate) struct Ahead(Child);

impl Ahead {
    /// Begins it, where a program can be run that way. What it says is said again by the lane's own build.
    pub(crate) fn begin() -> Option<Self> {
        let mut idle = Command::new("chrt");
        idle.args(["--idle", "0"]).arg(env!("CARGO"));
        cargo_build(&mut idle, &root()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Self)
    }
}

impl Drop for Ahead {
    /// Waits for its end: the lane's own build would, and then has nothing left to do.
    fn drop(&mut self) {
        drop(self.0.wait());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz")
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// Makes a command that runs cargo one that builds the targets.
fn cargo_build<'c>(cargo: &'c mut Command, root: &Path) -> &'c mut Command {
    // A target is named so that build scripts and macros go without counters.
    cargo.args(["build", "--locked", "--release", "--target", &triple()]).current_dir(root);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).stdin(Stdio::null())
}

/// Builds the targets; gives the folder they are in.
fn build(root: &Path) -> Result<Option<PathBuf>> {
    let built = cargo_build(&mut Command::new(env!("CARGO")), root).status().context("cargo did not start")?.success();
    Ok(built.then(|| root.join("target").join(triple()).join("release")))
}

fn fuzz(root: &Path, bin: &Path, target: String, seconds: u64) -> Result<Outcome> {
    let seconds = if EXPOSED.contains(&target.as_str()) { seconds } else { (seconds / OTHERS).max(1) };
    let (found, artifacts) = (root.join("target/corpus").join(&target), root.join("artifacts").join(&target));
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let started = Instant::now();
    let output = Command::new(bin.join(&target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args(LIMITS)
        // What is found goes into the first.
        .args([&found, &root.join("corpus").join(&target)])
        // Statics are no leaks, and finding leaks takes a debugger's rights.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{target} did not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let executions = last_number(&said, "stat::number_of_executed_units:");
    let edges = last_number(&said, " cov:");
    let fault = if !output.status.success() {
        Some(fault(&said))
    } else if executions == 0 || edges == 0 {
        Some("it ran without coverage counters".to_owned())
    } else {
        None
    };
    Ok(Outcome { target, executions, edges, took: started.elapsed(), fault })
}

/// The number behind the last `word`.
fn last_number(said: &str, word: &str) -> u64 {
    let behind = said.rsplit_once(word).and_then(|(_, behind)| behind.split_whitespace().next());
    behind.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What went wrong, and where the input is.
fn fault(said: &str) -> String {
    let telling =
        |line: &&str| ["panicked at", "ERROR: ", "Test unit written to"].iter().any(|word| line.contains(word));
    let lines: Vec<&str> = said.lines().filter(telling).collect();
    if lines.is_empty() { said.lines().rev().take(5).collect() } else { lines.join("; ") }
}

fn report(outcomes: &[Outcome], tally: &mut Tally) {
    println!("{:<20} {:>12} {:>9} {:>7}", "target", "executions", "per s", "edges");
    for Outcome { target, executions, edges, took, fault } in outcomes {
        let rate = *executions as f64 / took.as_secs_f64();
        println!("{target:<20} {executions:>12} {rate:>9.0} {edges:>7}  {}", fault.as_deref().unwrap_or("ok"));
        match fault {
            None => tally.passed += 1,
            Some(fault) => {
                tally.failed += 1;
                tally.failures.push(format!("lane fuzz: {target}: {fault}"));
            }
        }
    }
    let (all, faults) = (outcomes.iter().map(|outcome| outcome.executions).sum::<u64>(), outcomes.iter());
    let faults = faults.filter(|outcome| outcome.fault.is_some()).count();
    println!("FIGURE fuzz targets={} executions={all} crashes={faults}", outcomes.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let said = "#8\tNEW    cov: 9 ft: 1\n#9\tDONE   cov: 31 ft: 8\nstat::number_of_executed_units: 77\nx";
        assert_eq!((last_number(said, " cov:"), last_number(said, "stat::number_of_executed_units:")), (31, 77));
        assert_eq!(last_number("", " cov:"), 0);
        let said = "thread '<unnamed>' panicked at a.rs:1:2:\nx\n== ERROR: libFuzzer: deadly signal\n";
        assert_eq!(fault(said), "thread '<unnamed>' panicked at a.rs:1:2:; == ERROR: libFuzzer: deadly signal");
    }

    #[test]
    fn every_target_has_a_corpus_and_stands_in_the_manifest() {
        let root = root();
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let targets = targets(&root).unwrap();
        assert!(EXPOSED.iter().all(|name| targets.iter().any(|target| target == name)));
        for target in targets {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
            assert!(
                fs::read_dir(root.join("corpus").join(&target)).is_ok_and(|mut files| files.next().is_some()),
                "{target}"
            );
        }
    }
}
