// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lanes of the test run, and the count of what passed.

use std::{
    env,
    io::{BufRead, BufReader, pipe},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{fuzz, lab, packages::on_path, unit};

/// One group of checks.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// Whether it is run where no lane is named.
    pub(crate) usual: bool,
    pub(crate) needs_packages: bool,
    /// A program this lane needs, and how to get it.
    tool: Option<(&'static str, &'static str)>,
    work: Work,
}

/// What a lane does.
enum Work {
    /// Runs cargo; the exit code is the one result.
    Check(&'static [&'static str]),
    /// Runs cargo, whose output is that of a test runner.
    Tests(&'static [&'static str]),
    /// The same, with code and environment that the AddressSanitizer watches.
    Sanitized(&'static [&'static str]),
    /// Does it itself.
    Task(fn(&mut Tally) -> Result<()>),
}

/// Every lane, cheapest first. `netns` and what follows run alone: they measure a whole machine, or use all of it.
pub(crate) const LANES: [Lane; 12] = [
    Lane {
        name: "fmt",
        usual: true,
        needs_packages: false,
        tool: None,
        work: Work::Check(&["fmt", "--all", "--check"]),
    },
    Lane {
        name: "clippy",
        usual: true,
        needs_packages: false,
        tool: None,
        work: Work::Check(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Lane {
        name: "docs",
        usual: true,
        needs_packages: false,
        tool: None,
        work: Work::Check(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]),
    },
    Lane {
        name: "deny",
        usual: true,
        needs_packages: false,
        tool: Some(("cargo-deny", "cargo install --locked cargo-deny")),
        work: Work::Check(&["deny", "--locked", "check", "bans", "licenses", "sources"]),
    },
    Lane { name: "unit-file", usual: true, needs_packages: true, tool: None, work: Work::Task(unit::run) },
    Lane {
        name: "unit",
        usual: true,
        needs_packages: true,
        tool: None,
        work: Work::Tests(&[
            "test",
            "--locked",
            "--workspace",
            "--exclude",
            "pqvpn",
            "--exclude",
            "pqvpn-lab",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]),
    },
    Lane {
        name: "netns",
        usual: true,
        needs_packages: true,
        tool: None,
        work: Work::Tests(&[
            "test",
            "--locked",
            "--package",
            "pqvpn",
            "--package",
            "pqvpn-lab",
            "--no-fail-fast",
            "--",
            "--show-output",
            "--test-threads=1",
        ]),
    },
    Lane {
        // The crate with `unsafe`, against the kernel and in memory.
        name: "sanitize",
        usual: false,
        needs_packages: true,
        tool: None,
        work: Work::Sanitized(&[
            "test",
            "--locked",
            "--package",
            "pqvpn-dataplane",
            "--lib",
            "--test",
            "kernel",
            "--test",
            "session_traffic",
            // Named so that build scripts and macros go without.
            "--target",
            "x86_64-unknown-linux-gnu",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]),
    },
    // Its corpora are replayed in `unit`.
    Lane { name: "fuzz", usual: false, needs_packages: true, tool: None, work: Work::Task(fuzz::run) },
    Lane {
        // A share of it is in `netns`.
        name: "crash",
        usual: false,
        needs_packages: true,
        tool: None,
        work: Work::Tests(&[
            "test",
            "--locked",
            "--package",
            "pqvpn",
            "--test",
            "e2e",
            "crashes::",
            "--",
            "--show-output",
            "--test-threads=1",
        ]),
    },
    Lane { name: "flood", usual: false, needs_packages: true, tool: None, work: Work::Task(lab::flood) },
    Lane { name: "soak", usual: false, needs_packages: true, tool: None, work: Work::Task(lab::soak) },
];

/// What has been seen so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skips: Vec<String>,
    pub(crate) failures: Vec<String>,
}

impl Lane {
    /// Runs the lane to its end, whatever fails in it.
    pub(crate) fn run(&self, tally: &mut Tally) -> Result<()> {
        if let Some((tool, how)) = self.tool.filter(|(tool, _)| !on_path(tool) && !in_cargo_home(tool)) {
            tally.skips.push(format!("lane {}: {tool} is missing ({how})", self.name));
            return Ok(());
        }
        let (arguments, counts) = match self.work {
            Work::Task(task) => return task(tally),
            Work::Check(arguments) => (arguments, false),
            Work::Tests(arguments) | Work::Sanitized(arguments) => (arguments, true),
        };
        let failed_before = tally.failed;
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments);
        if matches!(self.work, Work::Sanitized(_)) {
            // A folder of its own: with other flags everything is built anew. Statics are no leaks.
            cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
            cargo.env("CARGO_TARGET_DIR", "target/sanitized").env("ASAN_OPTIONS", "detect_leaks=0");
        }
        let succeeded = watch(cargo, counts, tally)?;
        if !counts && succeeded {
            tally.passed += 1;
        }
        if !succeeded {
            // A test binary that crashes or does not build counts nothing itself.
            tally.failed += u64::from(tally.failed == failed_before);
            tally.failures.push(format!("lane {}: cargo {}", self.name, arguments.join(" ")));
        }
        Ok(())
    }
}

fn watch(mut command: Command, counts: bool, tally: &mut Tally) -> Result<bool> {
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links").stdin(Stdio::null());
    if !counts {
        return Ok(command.status().context("cargo did not start")?.success());
    }
    // One pipe for both: a test may say on either why it did not run.
    let (output, writer) = pipe().context("no pipe")?;
    command.stdout(writer.try_clone().context("no pipe")?).stderr(writer);
    let mut child = command.spawn().context("cargo did not start")?;
    // The command holds the writing ends; the output ends when the last of them is closed.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("cargo's output broke")?).into_owned();
        println!("{line}");
        tally.read(&line);
    }
    Ok(child.wait().context("cargo did not end")?.success())
}

impl Tally {
    /// Reads a line of a test runner: its closing line, or a test that says why it did not run.
    fn read(&mut self, line: &str) {
        // A runner with one thread has written the test's name into the same line.
        if let Some((_, reason)) = line.split_once("SKIP: ") {
            self.skips.push(reason.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count_before(counts, " passed");
            self.failed += count_before(counts, " failed");
            if let ignored @ 1.. = count_before(counts, " ignored") {
                self.skips.push(format!("{ignored} tests are marked as ignored"));
            }
        }
    }
}

fn count_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub(crate) fn in_cargo_home(tool: &str) -> bool {
    let cargo = std::path::Path::new(env!("CARGO"));
    let home = env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    cargo.with_file_name(tool).is_file() || home.is_some_and(|home| home.join("bin").join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_and_skips_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test a::b ... SKIP: no privilege to make a namespace",
            "test something ... ok",
        ] {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.skips.len()), (13, 2, 2));
    }
}
