// SPDX-License-Identifier: MIT OR Apache-2.0
//! `config`, and what a wrong configuration does to the other verbs.

use std::fs;

use crate::sandbox::{Run, Sandbox};

#[test]
fn init_writes_a_file_that_checks_and_never_overwrites() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("new/config.toml");
    let path = path.to_str().unwrap();
    let written = sandbox.run(&["config", "init", "--config", path, "--json"]).succeeded().json();
    assert_eq!(written["path"], path);
    sandbox.run(&["config", "check", path]).succeeded();
    fs::write(path, "[node]\nname = \"mine\"\n").unwrap();
    sandbox.run(&["config", "init", "--config", path]).failed(1, "exists already");
    assert!(fs::read_to_string(path).unwrap().contains("mine"));
    sandbox.run(&["config", "init", "--force", "--config", path]).succeeded();
    assert!(!fs::read_to_string(path).unwrap().contains("mine"));
}

#[test]
fn the_sample_says_the_defaults() {
    let sandbox = Sandbox::new();
    let defaults = sandbox.run(&["config", "show"]).succeeded().stdout;
    let sample = sandbox.run(&["config", "init", "--stdout"]).succeeded().stdout;
    sandbox.write("config.toml", &sample);
    assert_eq!(sandbox.run(&["config", "show"]).succeeded().stdout, defaults);
    assert!(defaults.contains("rekey_seconds = 120"));
}

#[test]
fn what_show_prints_is_a_configuration() {
    let sandbox = Sandbox::new();
    let shown = sandbox.run(&["config", "show"]).succeeded().stdout;
    let path = sandbox.write("shown.toml", &shown);
    sandbox.run(&["config", "check", path.to_str().unwrap()]).succeeded();
    let json = sandbox.run(&["config", "show", "--json"]).succeeded().json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["config"]["crypto"]["rekey_seconds"], 120);
}

#[test]
fn settings_are_shown_where_no_home_says_where_the_state_would_be() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("config.toml");
    fs::write(&path, "[crypto]\nrekey_seconds = 60\n").unwrap();
    crate::sandbox::chmod(&path, 0o644);
    let mut command = sandbox.command(&["config", "show"]);
    for name in ["HOME", "PQVPN_STATE", "PQVPN_SOCKET", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    let Some(mut command) = sandbox.as_nobody(&command) else { return };
    let shown = Run::of(&mut command).succeeded();
    assert!(shown.stdout.contains("rekey_seconds = 60"), "{}", shown.stdout);
}

#[test]
fn a_wrong_key_is_named_with_file_line_and_what_was_expected() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("config.toml", "[node]\nnmae = \"x\"\n[crypto]\nrekey_seconds = 1\n");
    for line in [&["config", "check"][..], &["config", "show"], &["id"], &["daemon"], &["up"]] {
        let run = sandbox.run(line);
        assert_eq!(run.code, 2, "{line:?} {}", run.stderr);
        let file = path.to_str().unwrap();
        assert!(run.stderr.contains(&format!("{file}:2: node.nmae")), "{}", run.stderr);
        assert!(run.stderr.contains("did you mean"), "{}", run.stderr);
        assert!(run.stderr.contains(&format!("{file}:4: crypto.rekey_seconds: expected 5 to 300")), "{}", run.stderr);
    }
    assert!(!sandbox.path("state").exists(), "nothing is left behind");
}

#[test]
fn a_configuration_named_and_missing_is_an_error_one_by_default_is_not() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("missing.toml");
    let missing = missing.to_str().unwrap();
    sandbox.run(&["config", "check", missing]).failed(2, "no such file");
    sandbox.run(&["config", "show", "--config", missing]).failed(2, "no such file");
    sandbox.run(&["daemon", "--config", missing]).failed(2, "no such file");
    sandbox.run(&["id", "--config", missing]).succeeded();
}

#[test]
fn a_node_that_names_itself_as_peer_does_not_start() {
    let sandbox = Sandbox::new();
    let id = sandbox.run(&["id", "--json"]).succeeded().json();
    let id = id["peer_id"].as_str().unwrap();
    sandbox.write("config.toml", &format!("[[peers]]\nid = \"{id}\"\nname = \"me\"\n"));
    let run = sandbox.run(&["daemon"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn the_sample_of_the_prototype_converts() {
    let sandbox = Sandbox::new();
    let yaml = "peer:\n  nickname: \"Alice\"\nnetwork:\n  bind_host: 0.0.0.0\n  listen_port: 9000\nrelay:\n  enabled: true\n\
                rekey:\n  interval_seconds: 120\nlogging:\n  level: INFO\n";
    let file = sandbox.write("old.yaml", yaml);
    let toml = sandbox.run(&["config", "convert", file.to_str().unwrap()]).succeeded().stdout;
    assert!(toml.contains("Alice") && toml.contains("0.0.0.0:9000"), "{toml}");
    let wrong = sandbox.write("wrong.yaml", "peer:\n  nickname: [\n");
    sandbox.run(&["config", "convert", wrong.to_str().unwrap()]).failed(2, "wrong.yaml:");
    let converted = sandbox.write("new.toml", &toml);
    sandbox.run(&["config", "check", converted.to_str().unwrap()]).succeeded();
}
