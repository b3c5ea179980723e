// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lab that is interrupted or killed leaves no process behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqvpn_lab::netns::{Namespace, NetnsError};
use pqvpn_lab::process::{Daemon, kill_children_on_interrupt, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// Set for the process that plays the lab the tests below kill.
const VICTIM: &str = "PQVPN_LAB_VICTIM";

/// The lab the tests below kill, in a process of its own; by itself it shows that nothing is left to do.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    kill_children_on_interrupt().unwrap();
    let namespace = Namespace::create("victim").unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let daemon = Daemon::spawn(&namespace, "sleep", sleep).unwrap();
    // With setpriv in between, the pid is the sleeper's own only once it was executed.
    let comm = format!("/proc/{}/comm", daemon.pid());
    daemon.wait_until("sleep", LIMIT, || std::fs::read_to_string(&comm).ok().filter(|comm| comm == "sleep\n")).unwrap();
    println!("\nsleeper {}", daemon.pid());
    daemon.wait(LIMIT * 3).unwrap();
}

#[test]
fn sigkill_takes_the_children_along() {
    if !std::path::Path::new("/usr/bin/setpriv").exists() {
        _ = writeln!(std::io::stderr(), "SKIP: no setpriv (util-linux), so children outlive a lab killed by SIGKILL");
        return;
    }
    dies_with(Signal::SIGKILL);
}

#[test]
fn interrupts_take_the_children_along() {
    dies_with(Signal::SIGINT);
    dies_with(Signal::SIGTERM);
}

fn dies_with(signal: Signal) {
    if let Err(error @ NetnsError::Forbidden(_)) = Namespace::create("probe") {
        _ = writeln!(std::io::stderr(), "SKIP: {error}");
        return;
    }
    let (mut lab, sleeper) = start_victim();
    assert!(runs(sleeper));
    kill(Pid::from_raw(lab.id().cast_signed()), signal).unwrap();
    let status = lab.wait().unwrap();
    assert!(!status.success());
    wait_until("the sleeper's end", LIMIT, || (!runs(sleeper)).then_some(())).unwrap();
}

fn start_victim() -> (Child, u32) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
    let mut lab = command.spawn().unwrap();
    let lines = BufReader::new(lab.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("sleeper ").map(str::to_owned));
    (lab, pid.unwrap().parse().unwrap())
}

/// Whether a process runs; one that ended but was not reaped does not.
fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}
