// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs that need no daemon, beside one that is another node or was started with other settings.

use std::fs;

use pqvpn_api::{
    model,
    server::{Access, ControlSocket, Service, serve},
};
use pqvpn_node::{
    handle::{Command, NodeHandle},
    snapshot::NodeState,
};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    control::{identity, snapshot},
    sandbox::Sandbox,
};

struct Beside {
    sandbox: Sandbox,
    _runtime: Runtime,
}

impl Beside {
    /// A daemon with the key 07..07, and the state directory that commands use where nothing else is said.
    fn start(with: impl FnOnce(&Sandbox, model::Started) -> model::Started) -> Self {
        let (sandbox, runtime) = Sandbox::serving();
        fs::create_dir(sandbox.path("state")).unwrap();
        let entered = runtime.enter();
        let (tx, mut rx) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(command) = rx.recv().await {
                if let Command::Snapshot(reply) = command {
                    drop(reply.send(snapshot(NodeState::Up)));
                }
            }
        });
        let access = Access::of_this_process();
        let socket = ControlSocket::bind(&sandbox.socket(), &access).unwrap();
        let started = model::Started {
            schema: 1,
            pid: 7,
            state_dir: sandbox.path("state"),
            ephemeral: false,
            config: Some(sandbox.path("config.toml")),
            settings: settings(&sandbox),
        };
        let service = Service::new(NodeHandle::new(tx), identity(&sandbox)).started(with(&sandbox, started));
        tokio::spawn(serve(socket, access, service, std::future::pending()));
        drop(entered);
        Self { sandbox, _runtime: runtime }
    }
}

/// The settings of a daemon started with an empty file.
fn settings(sandbox: &Sandbox) -> String {
    let shown = Sandbox::new().run(&["config", "show"]).succeeded().stdout;
    let line = format!("[node]\nstate_dir = {:?}\n", sandbox.path("state"));
    shown.replacen("[node]\n", &line, 1)
}

#[test]
fn whose_key_it_is_is_said_where_the_daemon_is_another_node() {
    let beside = Beside::start(|_, with| with);
    let run = |line: &[&str]| beside.sandbox.run(line).succeeded();
    let other = beside.sandbox.path("other");
    let at = ["--state", other.to_str().unwrap()];
    for verb in [&["id"][..], &["keys", "show"]] {
        let line = [verb, &at].concat();
        let said = run(&line).stderr;
        let state = beside.sandbox.path("state");
        let needle =
            format!("not the running daemon, which is {} and keeps its state in {}", "07".repeat(32), state.display());
        assert!(said.contains(&needle), "{line:?}: {said}");
        let json = run(&[&line[..], &["--json"]].concat()).json();
        assert_eq!(
            (&json["daemon"]["peer_id"], &json["daemon"]["ephemeral"]),
            (&"07".repeat(32).into(), &false.into())
        );
        assert_ne!(json["peer_id"], json["daemon"]["peer_id"]);
    }
    // Of the daemon itself there is nothing to remark, and without one there is none.
    let own = run(&["id", "--json"]);
    assert_eq!((own.json()["daemon"]["peer_id"].clone(), own.stderr.as_str()), ("07".repeat(32).into(), ""));
    let alone = Sandbox::new();
    assert_eq!(alone.run(&["id", "--json"]).succeeded().json()["daemon"], Value::Null);
    assert_eq!(alone.run(&["keys", "show", "--json"]).succeeded().json()["daemon"], Value::Null);
}

#[test]
fn a_key_in_memory_only_is_said_to_be_one() {
    let beside = Beside::start(|_, with| model::Started { ephemeral: true, ..with });
    let run = |line: &[&str]| beside.sandbox.run(line).succeeded();
    let id = run(&["id", "--json"]);
    assert_eq!((&id.json()["peer_id"], &id.json()["daemon"]["ephemeral"]), (&"07".repeat(32).into(), &true.into()));
    assert!(id.stderr.contains("keeps this key in memory only"), "{}", id.stderr);
    let elsewhere = beside.sandbox.path("elsewhere");
    let socket = elsewhere.join("s");
    let line = ["id", "--socket", socket.to_str().unwrap()];
    assert!(!run(&line).stderr.contains("daemon"), "none answers there");
    let shown = run(&["keys", "show", "--json"]);
    assert_ne!(shown.json()["peer_id"], "07".repeat(32));
    let needle = format!("which is {} and keeps that key in memory only", "07".repeat(32));
    assert!(shown.stderr.contains(&needle), "{}", shown.stderr);
}

#[test]
fn a_key_that_holds_from_the_next_start_is_said_to() {
    let beside = Beside::start(|_, with| with);
    let nobody = beside.sandbox.path("nobody");
    beside.sandbox.run(&["id", "--socket", nobody.to_str().unwrap()]).succeeded();
    let shown = beside.sandbox.run(&["keys", "show"]).succeeded();
    let needle = format!("the running daemon is {} until it is started again", "07".repeat(32));
    assert!(shown.stderr.contains(&needle), "{}", shown.stderr);
}

#[test]
fn settings_say_where_they_come_from_and_what_the_daemon_has_instead() {
    let beside = Beside::start(|_, with| with);
    let config = beside.sandbox.write("config.toml", "");
    let show = |more: &[&str]| beside.sandbox.run(&[&["config", "show", "--json"], more].concat()).succeeded();
    let same = show(&[]);
    assert_eq!((&same.json()["path"], &same.json()["daemon"]["pid"]), (&config.to_str().into(), &7.into()));
    assert_eq!((&same.json()["daemon"]["differs"], same.stderr.as_str()), (&serde_json::json!([]), ""));

    fs::write(&config, "[crypto]\nrekey_seconds = 60\n").unwrap();
    let changed = show(&["--log-level", "debug"]);
    let keys = serde_json::json!(["crypto.rekey_seconds", "logging.level"]);
    assert_eq!(
        (&changed.json()["daemon"]["differs"], &changed.json()["config"]["crypto"]["rekey_seconds"]),
        (&keys, &60.into())
    );
    let needle = format!(
        "this is what {} says; the running daemon (process 7) has other values of crypto.rekey_seconds, logging.level,",
        config.display()
    );
    assert!(changed.stderr.contains(&needle), "{}", changed.stderr);
    let text = beside.sandbox.run(&["config", "show"]).succeeded();
    assert!(text.stderr.contains("crypto.rekey_seconds") && !text.stdout.contains("process 7"), "{}", text.stderr);

    let other = beside.sandbox.write("other.toml", "");
    let of_another = show(&["--config", other.to_str().unwrap()]);
    let needle = format!("was started with {} and has the same values", config.display());
    assert!(of_another.stderr.contains(&needle), "{}", of_another.stderr);
    let none = Sandbox::new().run(&["config", "show", "--json"]).succeeded().json();
    assert_eq!((&none["path"], &none["daemon"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_same_place_in_other_words_is_the_same_place() {
    let beside = Beside::start(|_, with| with);
    beside.sandbox.write("config.toml", "");
    let linked = beside.sandbox.path("linked");
    std::os::unix::fs::symlink(beside.sandbox.path("state"), &linked).unwrap();
    let at = ["--json", "--state", linked.to_str().unwrap()];
    let run = |line: &[&str]| beside.sandbox.run(&[line, &at].concat()).succeeded();
    let id = run(&["id"]);
    assert_eq!((&id.json()["peer_id"], id.stderr.as_str()), (&"07".repeat(32).into(), ""), "the daemon's own answer");
    let again = beside.sandbox.path("again");
    std::os::unix::fs::symlink(beside.sandbox.path("."), &again).unwrap();
    for config in [beside.sandbox.path("config.toml"), again.join("config.toml")] {
        let shown = run(&["config", "show", "--config", config.to_str().unwrap()]);
        assert_eq!((&shown.json()["daemon"]["differs"], shown.stderr.as_str()), (&serde_json::json!([]), ""));
    }
}

#[test]
fn the_defaults_say_and_a_file_says() {
    let beside = Beside::start(|_, with| model::Started { settings: "[relay]\nenabled = true\n".to_owned(), ..with });
    let shown = beside.sandbox.run(&["config", "show"]).succeeded();
    assert!(shown.stderr.contains("this is what the defaults say; the running daemon"), "{}", shown.stderr);
}
