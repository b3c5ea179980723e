// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exit codes, versions, completions: what needs neither files nor a daemon.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

use crate::sandbox::{Run, Sandbox};

#[test]
fn usage_errors_exit_with_2() {
    let sandbox = Sandbox::new();
    for line in [&[][..], &["bogus"], &["status", "--bogus"], &["ping"], &["ping", "x", "-c", "0"], &["set", "k"]] {
        let run = sandbox.run(line);
        assert_eq!(run.code, 2, "{line:?}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{line:?}");
    }
}

#[test]
fn verbs_that_need_a_daemon_exit_with_3() {
    let sandbox = Sandbox::new();
    for line in [&["status"][..], &["peers"], &["down"], &["ping", "nas"], &["set", "node.name", "x"]] {
        sandbox.run(line).failed(3, "nobody listens at");
    }
}

#[test]
fn with_json_an_error_is_an_object_on_standard_output() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["status", "--json"]).failed(3, "");
    let error = &run.json()["error"];
    assert_eq!(error["code"], "no-daemon");
    for key in ["what", "why", "try"] {
        assert!(error[key].is_string(), "{key}");
    }
}

#[test]
fn a_line_that_makes_no_sense_is_answered_in_the_same_shape() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["statsu", "--json"]).failed(2, "unrecognized subcommand 'statsu'");
    let error = &run.json()["error"];
    assert_eq!(error["code"], "usage");
    assert!(error["try"].as_str().unwrap().contains("'status'"), "{error}");
    for line in ["error: ", "  why: ", "  try: "] {
        assert!(run.stderr.contains(line), "{}", run.stderr);
    }
    assert!(sandbox.run(&["ping"]).failed(2, "<PEER>").stderr.contains("`pqvpn ping --help`"));
}

#[test]
fn a_verb_of_a_later_version_is_taken_for_no_other() {
    let sandbox = Sandbox::new();
    for line in [&["route"][..], &["recv"], &["serve", "--json"], &["--json", "exit", "list"], &["run", "-x"]] {
        let run = sandbox.run(line).failed(2, "is not in this version");
        assert!(!run.stderr.contains("revoke") && !run.stderr.contains("similar"), "{line:?}: {}", run.stderr);
    }
    sandbox.run(&["net", "route"]).failed(2, "unrecognized subcommand 'route'");
}

#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let sandbox = Sandbox::new();
    let socket = sandbox.socket();
    std::fs::create_dir(sandbox.path("run")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // A daemon that says the same for ever; the thread ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let body = r#"{"schema":1,"version":"0","peer_id":"00","name":"n","state":"up","addresses":[],"listen":[],
                "interface":null,"networks":[],"peers":[],"drops":{},"health":[],"uptime_s":1}"#;
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let mut child = sandbox.command(&["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("n  up"), "{line}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_dead_socket_is_no_daemon() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(sandbox.socket()).unwrap());
    sandbox.run(&["status"]).failed(3, "nobody listens at");
}

#[test]
fn help_and_version_need_nothing() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["--help"]).succeeded().stdout.contains("Usage: pqvpn"));
    assert_eq!(sandbox.run(&["--version"]).succeeded().stdout.trim(), concat!("pqvpn ", env!("CARGO_PKG_VERSION")));
    let version = sandbox.run(&["version", "--json"]).succeeded().json();
    assert_eq!(version["schema"], 1);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["daemon"].is_null());
}

#[test]
fn verbs_that_are_not_built_do_not_exist() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).stdout;
    for verb in ["circuit", "policy", "audit", "exit", "service"] {
        assert_eq!(sandbox.run(&[verb]).code, 2, "{verb}");
        assert!(!help.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb}");
    }
}

#[test]
fn completions_name_every_verb() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completions", shell]).succeeded().stdout;
        for verb in ["daemon", "status", "ping", "keys", "dht", "bootstrap", "net", "invite", "join", "revoke", "lock"]
        {
            assert!(script.contains(verb), "{shell} {verb}");
        }
        assert!(
            ["ephemeral", "daemonize", "pid-file", "passphrase-file"].iter().all(|word| script.contains(word)),
            "{shell}"
        );
        // What only this program says to itself is offered to nobody.
        assert!(!script.contains("detached") && !script.contains("no-temp-keys"), "{shell}");
    }
    assert_eq!(sandbox.run(&["completions", "cobol"]).code, 2);
}

#[test]
fn nothing_is_coloured_without_a_terminal() {
    let sandbox = Sandbox::new();
    for line in [&["id"][..], &["status"], &["config", "init", "--stdout"], &["--help"]] {
        let Run { stdout, stderr, .. } = sandbox.run(line);
        assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "{line:?}");
    }
}

#[test]
fn a_user_without_a_home_is_told_so() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["status"]);
    for name in ["HOME", "XDG_CONFIG_HOME", "PQVPN_STATE", "PQVPN_SOCKET"] {
        command.env_remove(name);
    }
    let Some(mut command) = sandbox.as_nobody(&command) else { return };
    Run::of(&mut command).failed(2, "HOME is not set");
}
