// SPDX-License-Identifier: MIT OR Apache-2.0
//! From nothing to the first answer, and what `status` says then.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use pqvpn_lab::{netns::Namespace, process::Daemon};
use serde_json::Value;

use crate::rig::{LIMIT, Node, Outer, Pair, ms_since, tail, usable};

#[test]
fn the_first_ping_is_answered_soon_and_status_keeps_its_contract() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let start = Instant::now();
    pair.a.start();
    pair.b.start();
    let mut tries = 0;
    let first = loop {
        tries += 1;
        let run = pair.a.cli(&["ping", "b", "-c", "1", "-W", "5", "--json"]);
        if run.status.success() {
            break run;
        }
        let logs = (tail(&pair.a.daemon().stderr()), tail(&pair.b.daemon().stderr()));
        assert!(start.elapsed() < LIMIT, "no ping answered: {}\n{}\n{}", run.stderr, logs.0, logs.1);
    };
    let total = ms_since(start);
    let ping: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!((&ping["received"], &ping["peer_id"]), (&1.into(), &pair.b.id.as_str().into()));
    let handshake = pair.a.peer(&pair.b).session.unwrap().handshake_ms;
    eprintln!("FIGURE first_ping_ms={total:.0} (handshake {handshake:.0} ms, ping run {tries} answered; bar 1000)");

    // One ping verifies the asking end; the other end proves the way for itself within its own first probe.
    for (node, peer) in pair.both() {
        node.wait("a verified peer", || (node.peer(peer).state == pqvpn_api::model::PeerState::Verified).then_some(()));
        let run = node.cli(&["status", "--json"]);
        assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
        check_status(&serde_json::from_str(&run.stdout).unwrap(), node, peer);
    }
    let mut rtts: Vec<f64> = (0..50).map(|_| pair.a.ping(&pair.b).unwrap().rtt_ms).collect();
    rtts.sort_by(f64::total_cmp);
    eprintln!("FIGURE idle_rtt_ms p50={:.3} p95={:.3} max={:.3} of 50 pings", rtts[25], rtts[47], rtts[49]);
}

/// Every field of schema 1 with its type, and the values known here.
fn check_status(status: &Value, node: &Node, other: &Node) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a text, not {value}, in {status}")).to_owned();
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a count, not {value}, in {status}"));
    let real = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a number, not {value}, in {status}"));
    assert_eq!(count(&status["schema"]), 1);
    assert!(!text(&status["version"]).is_empty());
    assert_eq!(text(&status["peer_id"]), node.id);
    assert_eq!(text(&status["name"]), node.name);
    assert_eq!(text(&status["state"]), "up");
    assert_eq!(status["addresses"], serde_json::json!([node.v6, node.v4]));
    assert_eq!(text(&status["interface"]), crate::rig::TUN);
    assert_eq!(status["listen"], serde_json::json!(["0.0.0.0:41641", "[::]:41641"]));
    assert!(status["networks"].is_array() && status["health"].is_array());
    for reason in ["replay", "auth", "policy", "no_session", "spoof"] {
        assert_eq!(count(&status["drops"][reason]), 0, "{reason}");
    }
    let peers = status["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1);
    let peer = &peers[0];
    assert_eq!(text(&peer["peer_id"]), other.id);
    assert_eq!(text(&peer["name"]), other.name);
    assert_eq!(peer["addresses"], serde_json::json!([other.v6, other.v4]));
    assert_eq!(text(&peer["state"]), "verified");
    assert!((0.0..30.0).contains(&real(&peer["verified_age_s"])));
    let path = &peer["path"];
    assert_eq!(text(&path["kind"]), "direct");
    assert!(text(&path["remote"]).starts_with("203.0.113.") && text(&path["remote"]).ends_with(":41641"));
    assert!(path["via"].is_null() && !text(&path["why"]).is_empty());
    assert!(real(&path["rtt_ms"]) > 0.0 && (0.0..=1.0).contains(&real(&path["loss"])));
    // 1168 until the first padded probe is answered.
    assert!([1168, 1420].contains(&count(&path["mtu"])), "{path}");
    assert_eq!(count(&path["mtu_holes"]), 0);
    let session = &peer["session"];
    assert_eq!(text(&session["suite"]), "X25519MLKEM1024/MLDSA87-Ed25519");
    assert!(["AES-256-GCM", "ChaCha20-Poly1305"].contains(&text(&session["aead"]).as_str()));
    assert_eq!((count(&session["epoch"]), count(&session["phase"])), (0, 0));
    assert!(Duration::from_secs(count(&session["rekey_age_s"])) < LIMIT);
    for counter in ["tx_bytes", "rx_bytes", "tx_packets", "rx_packets"] {
        assert!(count(&peer[counter]) > 0, "{counter}");
    }
}

#[test]
fn a_daemon_has_its_allocator_keep_little_and_is_the_process_that_was_started() {
    if !usable() {
        return;
    }
    let mut node = Node::new(&Namespace::create("frugal").unwrap(), "a");
    for (given, expected) in
        [(None, "glibc.malloc.tcache_count=0"), (Some("glibc.malloc.perturb=1"), "glibc.malloc.perturb=1")]
    {
        node.environment = given.map(|given| ("GLIBC_TUNABLES".into(), given.into())).into_iter().collect();
        node.start_up();
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", node.daemon().pid())).unwrap();
        let environment = of("environ");
        let told = environment.split('\0').filter_map(|line| line.strip_prefix("GLIBC_TUNABLES="));
        assert_eq!(told.collect::<Vec<_>>(), [expected]);
        assert_eq!(of("comm"), "pqvpn\n");
        let words = of("cmdline");
        assert!(words.split('\0').next().unwrap().ends_with("pqvpn") && words.contains("--state"), "{words}");
        node.stop();
    }
}

#[test]
fn a_daemon_starts_again_once_whatever_becomes_of_its_environment_meanwhile() {
    if !usable() {
        return;
    }
    let node = Node::new(&Namespace::create("again").unwrap(), "a");
    // Of the process itself, as after the second start, and left over from another one.
    for (process, told) in [("$$", None), ("1", Some("glibc.malloc.tcache_count=0"))] {
        let script = format!("unset GLIBC_TUNABLES; PQVPN_STARTED_AGAIN={process} exec \"$@\"");
        let (daemon, pid) = (node.command(&["daemon", "--pid-file"]), node.file("pid"));
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(daemon.get_program()).args(daemon.get_args().take(2)).arg(&pid);
        command.args(daemon.get_args().skip(2));
        let daemon = Daemon::spawn(&node.namespace, "daemon", command).unwrap();
        daemon.wait_for_line("ready", LIMIT).unwrap_or_else(|error| panic!("{error} {}", tail(&daemon.stderr())));
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", fs::read_to_string(&pid).unwrap().trim()));
        let environment = of("environ").unwrap();
        let tunables = environment.split('\0').find_map(|line| line.strip_prefix("GLIBC_TUNABLES="));
        assert_eq!(tunables, told, "{process}");
        daemon.terminate(LIMIT).unwrap();
    }
}

#[test]
fn a_daemon_takes_as_many_open_files_as_it_may_up_to_a_bound_and_no_core_dump() {
    if !usable() {
        return;
    }
    let node = Node::new(&Namespace::create("files").unwrap(), "a");
    for (given, taken) in [("-Sn 100; ulimit -Hn 1000", ["1000", "1000"]), ("-Sn 1000", ["16384", "20000"])] {
        let limits = format!("ulimit -Hn 20000 && ulimit {given} && ulimit -Sc 5 && exec \"$@\"");
        let (daemon, pid) = (node.command(&["daemon", "--pid-file"]), node.file("pid"));
        let mut command = Command::new("sh");
        command.args(["-c", &limits, "sh"]).arg(daemon.get_program()).args(daemon.get_args().take(2)).arg(&pid);
        command.args(daemon.get_args().skip(2));
        let daemon = Daemon::spawn(&node.namespace, "daemon", command).unwrap();
        daemon.wait_for_line("ready", LIMIT).unwrap_or_else(|error| panic!("{error} {}", tail(&daemon.stderr())));
        let limits = fs::read_to_string(format!("/proc/{}/limits", fs::read_to_string(&pid).unwrap().trim())).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max open files"), taken);
        assert_eq!(limit("Max core file size"), ["0", "0"], "keys stay out of it");
        daemon.terminate(LIMIT).unwrap();
    }
}
