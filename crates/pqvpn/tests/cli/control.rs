// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs that talk to a daemon, against the real control server in front of a node this test plays.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pqvpn_api::{
    model,
    server::{Access, ControlSocket, Service, serve},
};
use pqvpn_crypto::{aead::AeadId, keystore::KeystoreError, peer_id::PeerId};
use pqvpn_node::{
    handle::{Command, NodeError, NodeHandle, PingReply, RotateKeys, RotationReport, SetOutcome},
    membership::{RotatedNetwork, RotationError},
    snapshot::{
        HealthItem, HealthLevel, LinksSnapshot, NetworkSnapshot, NodeState, PathKind, PathSnapshot, PeerCounts,
        PeerSnapshot, PeerState, SessionSnapshot, Snapshot,
    },
    store::StoreError,
};
use pqvpn_wire::dht::NetworkId;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::sandbox::{NOBODY, Run, Sandbox, chmod};

struct Fixture {
    sandbox: Sandbox,
    _runtime: Runtime,
}

impl Fixture {
    fn start() -> Self {
        Self::start_for(&Access::of_this_process())
    }

    fn start_for(access: &Access) -> Self {
        let (sandbox, runtime) = Sandbox::serving();
        let entered = runtime.enter();
        let (tx, mut rx) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut state = NodeState::Up;
            while let Some(command) = rx.recv().await {
                state = play(command, state);
            }
        });
        let socket = ControlSocket::bind(&sandbox.socket(), access).unwrap();
        let service = Service::new(NodeHandle::new(tx), identity(&sandbox));
        tokio::spawn(serve(socket, access.clone(), service, std::future::pending()));
        drop(entered);
        Self { sandbox, _runtime: runtime }
    }

    fn run(&self, line: &[&str]) -> Run {
        self.sandbox.run(line)
    }
}

fn play(command: Command, state: NodeState) -> NodeState {
    let answer = |peer: &str, wait| match peer {
        "nas" => Ok(PingReply {
            kind: PathKind::Direct,
            via: None,
            peer_id: PeerId::from_bytes([9; 32]),
            name: "nas".into(),
            rtt: Duration::from_micros(1500),
            remote: "203.0.113.5:41999".parse().unwrap(),
            why: "pinned endpoint".into(),
        }),
        "mute" => Err(NodeError::NoAnswer { peer: peer.into(), waited: wait, why: "silence".into() }),
        "mean" => Err(NodeError::Refused { peer: peer.into(), why: "unknown peer".into() }),
        _ => Err(NodeError::UnknownPeer(peer.into())),
    };
    match command {
        Command::Snapshot(reply) => drop(reply.send(snapshot(state))),
        Command::Up(reply) => {
            let _ = reply.send(Ok(()));
            return NodeState::Up;
        }
        Command::Down(reply) => {
            let _ = reply.send(Ok(()));
            return NodeState::Down;
        }
        Command::Ping(peer, wait, reply) => drop(reply.send(answer(&peer.0, wait))),
        Command::Rekey(peer, reply) | Command::Disconnect(peer, reply) => {
            drop(reply.send(Err(NodeError::NoSession(peer.0))));
        }
        Command::Set(key, _, reply) if key == "node.name" => drop(reply.send(Ok(SetOutcome::AfterRestart))),
        Command::Set(key, _, reply) => drop(reply.send(Err(NodeError::BadSetting(format!("{key}: unknown"))))),
        Command::RotateKeys(order, reply) => drop(reply.send(rotate(&order))),
        Command::Shutdown(_, reply) => drop(reply.send(())),
        Command::Dht(_) | Command::Network(_) | Command::Dns(_) | _ => {}
    }
    state
}

/// Of a node whose keystore takes a passphrase.
fn rotate(order: &RotateKeys) -> Result<RotationReport, NodeError> {
    if order.passphrase.is_none() {
        let error = KeystoreError::PassphraseNeeded;
        let error = StoreError::Keystore { path: "keystore".into(), error };
        return Err(NodeError::Rotation(RotationError::Keystore(error)));
    }
    let network =
        RotatedNetwork { network: "home".into(), name: "laptop".into(), told: 2, others: 3, admin: true, invites: 1 };
    Ok(RotationReport {
        old: PeerId::from_bytes([7; 32]),
        new: PeerId::from_bytes([8; 32]),
        fingerprint: "cd".repeat(32),
        addresses: vec!["fd00::8".parse().unwrap()],
        networks: vec![network],
    })
}

pub(crate) fn identity(sandbox: &Sandbox) -> model::Identity {
    model::Identity {
        schema: 1,
        peer_id: "07".repeat(32),
        name: "laptop".into(),
        addresses: vec![],
        fingerprint: "ab".repeat(32),
        state_dir: Some(sandbox.path("state")),
    }
}

fn snapshot_network() -> NetworkSnapshot {
    NetworkSnapshot {
        id: NetworkId::from_bytes([0x7e; 32]),
        name: "home".into(),
        own_name: "laptop".into(),
        members: 7,
        online: 5,
        enabled: true,
        ready: true,
    }
}

pub(crate) fn snapshot(state: NodeState) -> Snapshot {
    let peer = |byte, name: &str, state, session: Option<SessionSnapshot>| PeerSnapshot {
        peer_id: PeerId::from_bytes([byte; 32]),
        name: name.into(),
        addresses: vec!["fd00::2".parse().unwrap(), "10.100.9.2".parse().unwrap()],
        state,
        verified_age: session.is_some().then_some(Duration::from_secs(2)),
        path: session.is_some().then(|| PathSnapshot {
            kind: PathKind::Direct,
            via: None,
            carrier: "udp",
            remote: "203.0.113.5:41999".parse().unwrap(),
            why: "pinned endpoint".into(),
            rtt: Some(Duration::from_micros(11_200)),
            jitter: Some(Duration::from_micros(400)),
            loss: 0.0,
            rates: [1000.0, 20.0],
            mtu: 1420,
            holes: 0,
        }),
        session,
        tx_bytes: 2048,
        rx_bytes: 1,
        tx_packets: 2,
        rx_packets: 1,
        last_error: (name == "vps").then(|| "the peer does not\nknow \x1b[31mus".into()),
        pinned: false,
        networks: vec![("home".into(), "nas".into())],
        counts: PeerCounts::default(),
    };
    let session = SessionSnapshot {
        aead: AeadId::Aes256Gcm,
        epoch: 3,
        phase: 2,
        rekey_age: Duration::from_secs(41),
        handshake: Duration::from_millis(6),
        link_asleep: false,
    };
    Snapshot {
        peer_id: PeerId::from_bytes([7; 32]),
        name: "laptop".into(),
        state,
        addresses: vec!["fd00::1".parse().unwrap(), "10.100.3.7".parse().unwrap()],
        interface: Some("pqvpn0".into()),
        listen: vec!["0.0.0.0:41641".parse().unwrap()],
        networks: vec![snapshot_network()],
        peers: vec![peer(9, "nas", PeerState::Verified, Some(session)), peer(10, "vps", PeerState::Refused, None)],
        drops: vec![("replay", 3), ("auth", 0)],
        health: vec![HealthItem { level: HealthLevel::Warn, code: "key-expiry", text: "soon".into() }],
        uptime: Duration::from_secs(9),
        port_mapping: pqvpn_node::netcheck::MappingReport::default(),
        links: LinksSnapshot::default(),
        lost_events: 0,
    }
}

#[test]
fn status_json_is_one_object_of_schema_1() {
    let status = Fixture::start().run(&["status", "--json"]).succeeded().json();
    assert_eq!(status["schema"], 1);
    assert_eq!(status["peers"][0]["session"]["suite"], "X25519MLKEM1024/MLDSA87-Ed25519");
    assert_eq!(status["peers"][0]["path"]["kind"], "direct");
    assert_eq!(status["peers"][1]["session"], serde_json::Value::Null);
}

#[test]
fn the_table_shows_proof_and_reasons_and_no_control_characters() {
    let text = Fixture::start().run(&["status"]).succeeded().stdout;
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("nas").contains("verified 2s ago") && line("nas").contains("direct 203.0.113.5:41999"), "{text}");
    assert!(line("vps").contains("refused"), "{text}");
    assert!(line("# vps").contains("the peer does not?know ?[31mus"), "{text}");
    assert!(text.contains("# dropped: replay 3\n"), "drops only where there are any: {text}");
    assert!(text.contains("# warn key-expiry: soon"), "{text}");
}

#[test]
fn peers_shows_each_in_full() {
    let fixture = Fixture::start();
    let text = fixture.run(&["peers"]).succeeded().stdout;
    assert!(text.contains(&"09".repeat(32)) && text.contains("pinned endpoint"), "{text}");
    assert_eq!(fixture.run(&["peers", "--json"]).succeeded().json()["peers"].as_array().unwrap().len(), 2);
}

#[test]
fn ping_counts_and_names_the_path() {
    let fixture = Fixture::start();
    let ping = fixture.run(&["ping", "nas", "-c", "3", "-i", "0.001", "--json"]).succeeded().json();
    assert_eq!((&ping["sent"], &ping["received"]), (&3.into(), &3.into()));
    assert_eq!(ping["rtt_ms"]["avg"], 1.5);
    assert_eq!(ping["replies"][2]["path"]["remote"], "203.0.113.5:41999");
    let text = fixture.run(&["ping", "nas", "-c", "1"]).succeeded().stdout;
    assert!(text.contains("pong from nas in 1.500 ms, direct 203.0.113.5:41999 (pinned endpoint)"), "{text}");
}

#[test]
fn a_ping_ends_when_nobody_reads_it() {
    let fixture = Fixture::start();
    for peer in ["nas", "mute"] {
        let begun = Instant::now();
        let mut child = fixture.sandbox.command(&["ping", peer, "-c", "60"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("1: "), "{line}");
        child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{peer} is pinged for nobody");
    }
}

#[test]
fn an_interrupted_ping_says_what_it_has() {
    let fixture = Fixture::start();
    let interrupted = |peer: &str| {
        let mut child =
            fixture.sandbox.command(&["ping", peer, "-c", "60", "-i", "30"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("1: "), "{line}");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap().code(), rest)
    };
    let (code, rest) = interrupted("nas");
    assert_eq!(code, Some(0));
    assert!(rest.contains("1 of 1 answered; rtt min/avg/max 1.500/"), "{rest}");
    assert_eq!(interrupted("mute").0, Some(1));
}

#[test]
fn failed_pings_exit_by_their_reason() {
    let fixture = Fixture::start();
    fixture.run(&["ping", "mute", "-c", "2", "-i", "0.001"]).failed(1, "silence");
    fixture.run(&["ping", "nobody"]).failed(1, "no peer is called");
    fixture.run(&["ping", "mean"]).failed(4, "unknown peer");
}

#[test]
fn up_and_down_change_the_state_and_start_no_second_daemon() {
    let fixture = Fixture::start();
    assert_eq!(fixture.run(&["down", "--json"]).succeeded().json()["state"], "down");
    assert_eq!(fixture.run(&["status", "--json"]).succeeded().json()["state"], "down");
    let up = fixture.run(&["up", "--json"]).succeeded().json();
    assert_eq!(up["state"], "up");
    assert!(up["started_pid"].is_null());
    assert!(fixture.run(&["up", "--quiet"]).succeeded().stdout.is_empty());
}

#[test]
fn set_says_from_when_it_holds_and_refuses_what_is_unknown() {
    let fixture = Fixture::start();
    assert_eq!(fixture.run(&["set", "node.name", "x", "--json"]).succeeded().json()["outcome"], "after-restart");
    fixture.run(&["set", "bogus.key", "x"]).failed(2, "unknown");
}

#[test]
fn id_asks_the_daemon_of_the_same_state_directory_only() {
    let fixture = Fixture::start();
    fs::create_dir(fixture.sandbox.path("state")).unwrap();
    let id = fixture.run(&["id", "--json"]).succeeded().json();
    assert_eq!(id["peer_id"], "07".repeat(32));
    assert_eq!(id["addresses"][1], "10.100.3.7");
    assert!(!fixture.sandbox.keystore().exists());
    let other = fixture.sandbox.path("other");
    let id = fixture.run(&["id", "--json", "--state", other.to_str().unwrap()]).succeeded().json();
    assert_ne!(id["peer_id"], "07".repeat(32));
}

#[test]
fn a_second_daemon_is_refused_before_it_touches_anything() {
    let fixture = Fixture::start();
    fixture.run(&["daemon", "--ephemeral"]).failed(1, "a daemon already answers");
    fixture.run(&["status"]).succeeded();
}

#[test]
fn another_user_is_refused_by_the_mode_of_the_socket() {
    let fixture = Fixture::start();
    chmod(&fixture.sandbox.path("run"), 0o755);
    let Some(run) = fixture.sandbox.run_as_nobody(&["status"]) else { return };
    run.failed(4, "Permission denied");
}

#[test]
fn another_user_is_refused_by_its_credentials_where_the_mode_was_widened() {
    let fixture = Fixture::start();
    chmod(&fixture.sandbox.path("run"), 0o755);
    chmod(&fixture.sandbox.socket(), 0o666);
    for line in [&["status"][..], &["down"], &["set", "node.name", "x"]] {
        let Some(run) = fixture.sandbox.run_as_nobody(line) else { return };
        run.failed(4, "may not control it");
    }
    assert_eq!(fixture.run(&["status", "--json"]).succeeded().json()["state"], "up");
}

#[test]
fn an_operator_is_let_in() {
    let access = Access::new(nix::unistd::geteuid().as_raw(), Some(NOBODY));
    let fixture = Fixture::start_for(&access);
    chmod(&fixture.sandbox.path("run"), 0o755);
    let Some(run) = fixture.sandbox.run_as_nobody(&["status", "--json"]) else { return };
    run.succeeded();
}

#[test]
fn a_key_is_rotated_only_by_who_means_it_and_knows_the_passphrase() {
    let fixture = Fixture::start();
    fixture.run(&["keys", "rotate"]).failed(4, "nobody confirmed");
    fixture.run(&["keys", "rotate", "--yes"]).failed(4, "takes one");
    let phrase = fixture.sandbox.write("phrase", "secret phrase\n");
    let line = ["keys", "rotate", "--accept-risk", "--passphrase-file", phrase.to_str().unwrap()];
    let run = fixture.run(&line).succeeded();
    for said in [
        &format!("this node is {} now", "08".repeat(32)),
        "home: still laptop, an admin as before; 2 of 3 members have heard it, the others will when they meet it",
        "its invites are void (1)",
        "fd00::8",
        "[[peers]]",
    ] {
        assert!(run.stdout.contains(said), "{said}: {}", run.stdout);
    }
    let json = fixture.run(&[&line[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&json["schema"], &json["networks"][0]["void_invites"]), (&1.into(), &1.into()));
    assert_eq!((&json["old_peer_id"], &json["peer_id"]), (&"07".repeat(32).into(), &"08".repeat(32).into()));
    // The daemon says who it is now, also to `id`.
    let id = fixture.run(&["id", "--json"]).succeeded().json();
    assert_eq!((&id["peer_id"], &id["fingerprint"]), (&"08".repeat(32).into(), &"cd".repeat(32).into()));
}
