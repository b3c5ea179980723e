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
    /// The same, with these variables where nobody has set them.
    Long(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// The same, with code and environment that the AddressSanitizer watches.
    Sanitized(&'static [&'static str]),
    /// Does it itself.
    Task(fn(&mut Tally) -> Result<()>),
}

/// Every lane, cheapest first. `netns` and what follows run alone, but for a build that takes what `netns` leaves: they measure a
/// whole machine, or use all of it.
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
        work: Work::Long(
            &[
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
            ],
            // More than 1,000 faults: one after the other, every call of every order.
            &[("PQVPN_CRASHES", "1000"), ("PQVPN_FAULTS", "1001")],
        ),
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
    /// The tests that failed, each with what the runner said of it: a log is read from its end.
    pub(crate) said: Vec<String>,
    section: Section,
}

/// Which part of a test runner's closing words a line belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Elsewhere,
    Failures,
    /// Inside a failed test's own output, before it panics.
    Output,
    /// From its panic on, of which so many lines are kept.
    Panic(usize),
}

/// Lines kept of what a failed test wrote: the panic and where it was.
const KEPT_LINES: usize = 12;

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
            Work::Tests(arguments) | Work::Long(arguments, _) | Work::Sanitized(arguments) => (arguments, true),
        };
        let failed_before = tally.failed;
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments);
        if let Work::Long(_, variables) = self.work {
            cargo.envs(variables.iter().filter(|(name, _)| env::var_os(name).is_none()).copied());
        }
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
        self.keep(line);
    }

    /// Keeps what a runner says of the tests that failed. It lists what the others wrote first, in the same form.
    fn keep(&mut self, line: &str) {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        self.section = match (self.section, heading) {
            _ if line.starts_with("test result: ") || line == "successes:" => Section::Elsewhere,
            (_, None) if line == "failures:" => Section::Failures,
            (Section::Elsewhere, _) => Section::Elsewhere,
            (_, Some(test)) => {
                self.said.push(test.to_owned());
                Section::Output
            }
            (Section::Output, None) if line.contains("panicked at ") => {
                self.said.push(format!("    {line}"));
                Section::Panic(KEPT_LINES)
            }
            (Section::Panic(left @ 1..), None) if !line.is_empty() => {
                self.said.push(format!("    {line}"));
                Section::Panic(left - 1)
            }
            (section, None) => section,
        };
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

    #[test]
    fn what_failed_tests_said_is_kept_and_nothing_of_the_others() {
        let log = "successes:\n\n---- a::good stdout ----\nnoise\n\nsuccesses:\n    a::good\n\n\
                   failures:\n\n---- a::bad stdout ----\nmuch\n\nthread 'a::bad' panicked at x.rs:1:2:\nwhy\n\n\n\
                   failures:\n    a::bad\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\nnot of it";
        let mut tally = Tally::default();
        log.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.said, ["a::bad", "    thread 'a::bad' panicked at x.rs:1:2:", "    why"]);
    }
}
