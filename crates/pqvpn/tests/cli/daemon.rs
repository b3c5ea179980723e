// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon where it cannot run: one clear error, and nothing half-set left behind.

use std::fs;

use crate::sandbox::{NOBODY, Sandbox};

/// Any free port, no other interface than this test's.
const CONFIG: &str = "[node]\nlisten = [\"127.0.0.1:0\"]\n[interface]\nname = \"pqvpnclitest\"\n";

fn unprivileged() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    let config = sandbox.write("config.toml", CONFIG);
    crate::sandbox::chmod(&config, 0o644);
    for directory in ["state", "run"] {
        fs::create_dir(sandbox.path(directory)).unwrap();
        std::os::unix::fs::chown(sandbox.path(directory), Some(NOBODY), Some(NOBODY)).ok()?;
    }
    Some(sandbox)
}

#[test]
fn without_privilege_the_daemon_says_so_and_leaves_nothing() {
    let Some(sandbox) = unprivileged() else { return };
    for line in [&["daemon"][..], &["daemon", "--daemonize"], &["up"]] {
        let Some(run) = sandbox.run_as_nobody(line) else { return };
        run.failed(4, "privilege");
        assert!(!sandbox.socket().exists(), "{line:?}");
    }
}

#[test]
fn a_pid_file_goes_with_a_daemon_that_did_not_start() {
    let Some(sandbox) = unprivileged() else { return };
    let pid = sandbox.path("run/pid");
    let Some(run) = sandbox.run_as_nobody(&["daemon", "--pid-file", pid.to_str().unwrap()]) else { return };
    run.failed(4, "privilege");
    assert!(!pid.exists());
}

#[test]
fn a_pid_file_that_cannot_be_made_is_named_as_it_was_given() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", CONFIG);
    let run = sandbox.run(&["daemon", "--pid-file", "/no/such/directory/pid"]).failed(1, "/no/such/directory/pid:");
    assert!(run.stderr.contains("--pid-file"), "{}", run.stderr);
    assert!(!sandbox.socket().exists());
}

#[test]
fn a_socket_path_nobody_could_connect_to_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", CONFIG);
    let path = sandbox.path(&"s".repeat(120));
    sandbox.run(&["daemon", "--socket", path.to_str().unwrap()]).failed(1, "longer than the 107 bytes");
    assert!(!path.exists());
}

#[test]
fn an_ephemeral_daemon_writes_no_key() {
    let Some(sandbox) = unprivileged() else { return };
    let Some(run) = sandbox.run_as_nobody(&["daemon", "--ephemeral"]) else { return };
    run.failed(4, "privilege");
    assert!(!sandbox.keystore().exists());
}

#[test]
fn a_socket_path_taken_by_a_file_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", CONFIG);
    let path = sandbox.write("precious", "data");
    sandbox.run(&["daemon", "--socket", path.to_str().unwrap()]).failed(1, "is not a socket");
    assert_eq!(fs::read(path).unwrap(), b"data");
}

#[test]
fn a_log_file_that_cannot_be_made_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", &format!("{CONFIG}[logging]\nfile = \"no/such/directory/log\"\n"));
    sandbox.run(&["daemon"]).failed(1, "no/such/directory/log");
}

#[test]
fn who_comes_second_is_told_who_has_the_state_directory_and_where_it_answers() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", CONFIG);
    fs::create_dir(sandbox.path("state")).unwrap();
    crate::sandbox::chmod(&sandbox.path("state"), 0o700);
    let (path, first) = (sandbox.path("state/lock"), sandbox.path("first/s"));
    let held = fs::File::create(&path).unwrap();
    held.lock().unwrap();
    let (other, state) = (sandbox.path("other"), sandbox.path("state"));
    let at = ["--socket", other.to_str().unwrap()];
    for (text, why) in [
        ("", format!("another daemon uses {}", state.display())),
        ("17\n\n", format!("process 17 uses {}", state.display())),
        ("no number\n/x\n", format!("another daemon uses {}", state.display())),
    ] {
        fs::write(&path, text).unwrap();
        sandbox.run(&[&["daemon"][..], &at].concat()).failed(1, &why);
    }
    fs::write(&path, format!("17\n{}\n", first.display())).unwrap();
    let why = format!("another daemon, process 17, uses {}; it answers at {}", state.display(), first.display());
    for (verb, what) in [("daemon", "the daemon did not start"), ("up", "no second daemon was started")] {
        let run = sandbox.run(&[&[verb][..], &at].concat()).failed(1, &why);
        assert_eq!(run.stderr.lines().count(), 3, "{}", run.stderr);
        assert!(run.stderr.starts_with(&format!("error: {what}\n")), "{}", run.stderr);
        assert!(run.stderr.contains(&format!("`--socket {}` talks to that one", first.display())), "{}", run.stderr);
    }
    let clean = sandbox.run(&["host", "clean"]).failed(1, &why);
    assert!(
        clean.stderr.contains("try: stop the daemon first") && !clean.stderr.contains("--state"),
        "{}",
        clean.stderr
    );
}

#[test]
fn the_same_socket_by_another_way_is_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", CONFIG);
    for directory in ["state", "run"] {
        fs::create_dir(sandbox.path(directory)).unwrap();
    }
    crate::sandbox::chmod(&sandbox.path("state"), 0o700);
    let linked = sandbox.path("linked");
    std::os::unix::fs::symlink(sandbox.path("run"), &linked).unwrap();
    let path = sandbox.write("state/lock", &format!("17\n{}\n", linked.join("s").display()));
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    // Who waits says in the end that no daemon started, and not that it answers elsewhere.
    let run = sandbox.run(&["up"]).failed(1, "another daemon, process 17");
    assert!(!run.stderr.starts_with("error: no second daemon was started"), "{}", run.stderr);
}

#[test]
fn who_has_the_state_directory_says_so_over_what_the_one_before_said() {
    let Some(sandbox) = unprivileged() else { return };
    let path = sandbox.write("state/lock", &format!("17\n{}\n", "x".repeat(300)));
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    let Some(run) = sandbox.run_as_nobody(&["daemon"]) else { return };
    run.failed(4, "privilege");
    let said = fs::read_to_string(path).unwrap();
    let [pid, socket] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid != 17) && socket == sandbox.socket().to_str().unwrap(), "{said}");
}
