// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes are waited for with a deadline, heard, measured, and never outlive their handle.

use super::*;
use crate::netns::tests::namespace;
use std::path::Path;

const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn output_status_and_environment_arrive() {
    let Some(ns) = namespace("run") else { return };
    let mut command = shell("echo \"$GREETING\"; echo problem >&2; exit 3");
    command.env("GREETING", "good day");
    let finished = run(&ns, command, LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("good day\n", "problem\n"));
}

#[test]
fn a_line_is_waited_for_and_a_death_is_noticed() {
    let Some(ns) = namespace("lines") else { return };
    let daemon = Daemon::spawn(&ns, "talker", shell("echo ready on 7; exec sleep 600")).unwrap();
    assert_eq!(daemon.wait_for_line("ready", LIMIT).unwrap(), "ready on 7");
    let dead = Daemon::spawn(&ns, "mute", shell("echo why >&2; exit 1")).unwrap();
    let error = dead.wait_for_line("ready", LIMIT).unwrap_err();
    assert!(matches!(&error, ProcessError::Ended { output, .. } if output == "why\n"), "{error}");
}

#[test]
fn dropping_kills() {
    let Some(ns) = namespace("drop") else { return };
    let daemon = Daemon::spawn(&ns, "sleeper", shell("exec sleep 600")).unwrap();
    let proc_dir = format!("/proc/{}", daemon.pid());
    assert!(Path::new(&proc_dir).exists());
    drop(daemon);
    assert!(!Path::new(&proc_dir).exists());
}

#[test]
fn terminate_is_polite_first_and_firm_later() {
    let Some(ns) = namespace("terminate") else { return };
    let polite =
        Daemon::spawn(&ns, "polite", shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"));
    let polite = polite.unwrap();
    polite.wait_for_line("up", LIMIT).unwrap();
    let finished = polite.terminate(LIMIT).unwrap();
    assert!(finished.status.success() && finished.stdout.contains("bye"), "{finished:?}");
    let deaf = Daemon::spawn(&ns, "deaf", shell("trap '' TERM; echo up; while :; do sleep 0.05; done")).unwrap();
    deaf.wait_for_line("up", LIMIT).unwrap();
    assert!(matches!(deaf.terminate(Duration::from_millis(50)), Err(ProcessError::Timeout { .. })));
    assert!(deaf.exited().unwrap().is_some());
}

#[test]
fn usage_counts_cpu_time() {
    let Some(ns) = namespace("usage") else { return };
    let busy = Daemon::spawn(&ns, "busy", shell("while :; do :; done")).unwrap();
    let cpu = busy.wait_until("CPU time", LIMIT, || busy.usage().ok().filter(|usage| usage.cpu > Duration::ZERO));
    assert!(cpu.unwrap().rss > 0);
}

#[test]
fn a_missing_program_is_an_error_at_once() {
    let Some(ns) = namespace("missing") else { return };
    assert!(matches!(Daemon::spawn(&ns, "x", Command::new("no-such-program-at-all")), Err(ProcessError::Start(_))));
}

#[test]
fn waiting_in_vain_names_what_was_waited_for() {
    let error = wait_until("rain", Duration::ZERO, || None::<()>).unwrap_err();
    assert_eq!(error.to_string(), "rain did not happen within 0ns");
}

#[test]
fn output_is_bounded() {
    let stream = Stream::default();
    for _ in 0..300 {
        stream.append(&[b'x'; 8192]);
    }
    stream.append(b"end");
    assert_eq!(stream.text().len(), MAX_OUTPUT);
    assert!(stream.text().ends_with("xend"));
}
