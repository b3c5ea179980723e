// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server in front of a fake node: a task that answers commands as the test says.

mod dht;
mod exporter;
mod metrics;
mod networks;

use std::{collections::BTreeSet, fs, io::ErrorKind, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use pqvpn_crypto::{aead::AeadId, peer_id::PeerId};
use pqvpn_node::{
    handle::{Command, NodeError, NodeHandle, PingReply, SetOutcome},
    snapshot,
};
use pqvpn_wire::dht::NetworkId;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Access, ControlSocket, Service, serve};
use crate::model;

struct Daemon {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _dir: TempDir,
}

impl Daemon {
    fn start(answer: impl FnMut(Command) + Send + 'static) -> Self {
        Self::start_with(|service| service, answer)
    }

    fn keeping_settings_in(config: PathBuf, answer: impl FnMut(Command) + Send + 'static) -> Self {
        Self::start_with(|service| service.keeping_settings_in(config), answer)
    }

    fn start_with(adapt: impl FnOnce(Service) -> Service, mut answer: impl FnMut(Command) + Send + 'static) -> Self {
        let access = Access::of_this_process();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (tx, mut rx) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(command) = rx.recv().await {
                answer(command);
            }
        });
        let socket = ControlSocket::bind(&path, &access).unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = adapt(Service::new(NodeHandle::new(tx), identity()));
        let served = tokio::spawn(serve(socket, access, service, async {
            let _ = stopped.await;
        }));
        Self { path, stop, served, _dir: dir }
    }

    /// Sends one request, byte for byte, and returns status and body.
    async fn raw(&self, request: &[u8]) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {}
            Err(error) => panic!("{error}"),
        }
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    async fn get(&self, resource: &str) -> (u16, Value) {
        self.raw(format!("GET {resource} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, resource: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        self.raw(
            format!(
                "POST {resource} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
        .await
    }
}

fn identity() -> model::Identity {
    model::Identity {
        schema: 1,
        peer_id: PeerId::from_bytes([7; 32]).to_string(),
        name: "laptop".into(),
        addresses: vec![],
        fingerprint: "ab".into(),
        state_dir: None,
    }
}

fn a_snapshot() -> snapshot::Snapshot {
    snapshot::Snapshot {
        peer_id: PeerId::from_bytes([7; 32]),
        name: "laptop".into(),
        state: snapshot::NodeState::Up,
        addresses: vec!["fd00::1".parse().unwrap(), "10.100.3.7".parse().unwrap()],
        interface: Some("pqvpn0".into()),
        listen: vec!["0.0.0.0:41641".parse().unwrap()],
        networks: vec![snapshot_network()],
        peers: vec![a_peer()],
        drops: vec![("replay", 3), ("short", 1)],
        health: vec![snapshot::HealthItem {
            level: snapshot::HealthLevel::Warn,
            code: "key-expiry",
            text: "soon".into(),
        }],
        uptime: Duration::from_secs(9),
        port_mapping: pqvpn_node::netcheck::MappingReport::default(),
        links: snapshot::LinksSnapshot::default(),
        lost_events: 0,
    }
}

fn snapshot_network() -> snapshot::NetworkSnapshot {
    snapshot::NetworkSnapshot {
        id: NetworkId::from_bytes([0x7e; 32]),
        name: "home".into(),
        own_name: "laptop".into(),
        members: 7,
        online: 5,
        enabled: true,
        ready: true,
    }
}

fn a_peer() -> snapshot::PeerSnapshot {
    snapshot::PeerSnapshot {
        peer_id: PeerId::from_bytes([9; 32]),
        name: "nas".into(),
        addresses: vec!["fd00::2".parse().unwrap()],
        state: snapshot::PeerState::Verified,
        verified_age: Some(Duration::from_millis(2_140)),
        path: Some(snapshot::PathSnapshot {
            kind: snapshot::PathKind::Direct,
            via: None,
            carrier: "udp",
            remote: "203.0.113.5:41999".parse().unwrap(),
            why: "pinned endpoint".into(),
            rtt: Some(Duration::from_micros(11_200)),
            jitter: Some(Duration::from_micros(400)),
            loss: 0.0,
            rates: [1000.4, 20.0],
            mtu: 1420,
            holes: 1,
        }),
        session: Some(snapshot::SessionSnapshot {
            aead: AeadId::Aes256Gcm,
            epoch: 3,
            phase: 2,
            rekey_age: Duration::from_secs(41),
            handshake: Duration::from_millis(6),
            link_asleep: true,
        }),
        tx_bytes: 1,
        rx_bytes: 2,
        tx_packets: 3,
        rx_packets: 4,
        last_error: None,
        pinned: false,
        networks: vec![("home".into(), "nas".into())],
        counts: snapshot::PeerCounts { sessions: 2, dials_failed: 1, rekeys: 5, path_changes: 4, failovers: 3 },
    }
}

fn answer_snapshots(command: Command) {
    let Command::Snapshot(reply) = command else { panic!("{command:?}") };
    let _ = reply.send(a_snapshot());
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn status_has_the_shape_of_schema_1() {
    let daemon = Daemon::start(answer_snapshots);
    let (code, status) = daemon.get("/v1/status").await;
    assert_eq!(code, 200);
    let promised = [
        "schema",
        "version",
        "peer_id",
        "name",
        "state",
        "addresses",
        "interface",
        "listen",
        "networks",
        "peers",
        "drops",
        "health",
    ];
    assert!(keys(&status).is_superset(&BTreeSet::from(promised)), "{status}");
    let peer = &status["peers"][0];
    let promised = [
        "peer_id",
        "name",
        "addresses",
        "state",
        "verified_age_s",
        "path",
        "session",
        "tx_bytes",
        "rx_bytes",
        "tx_packets",
        "rx_packets",
    ];
    assert!(keys(peer).is_superset(&BTreeSet::from(promised)), "{peer}");
    assert_eq!(status["schema"], 1);
    assert_eq!(status["state"], "up");
    assert_eq!(peer["state"], "verified");
    assert_eq!(peer["verified_age_s"], 2.1);
    assert_eq!(
        peer["path"],
        serde_json::json!({"kind": "direct", "remote": "203.0.113.5:41999", "via": null, "carrier": "udp", "why": "pinned endpoint",
            "rtt_ms": 11.2, "jitter_ms": 0.4, "loss": 0.0,
            "tx_rate": 1000.0, "rx_rate": 20.0, "mtu": 1420, "mtu_holes": 1})
    );
    assert_eq!(peer["session"]["suite"], "X25519MLKEM1024/MLDSA87-Ed25519");
    assert_eq!(peer["session"]["aead"], "AES-256-GCM");
    assert_eq!(peer["session"]["rekey_age_s"], 41);
    assert_eq!(peer["session"]["link_asleep"], true);
    assert_eq!(status["health"][0], serde_json::json!({"level": "warn", "code": "key-expiry", "text": "soon"}));
}

#[tokio::test]
async fn every_promised_drop_reason_is_present() {
    let daemon = Daemon::start(answer_snapshots);
    let (_, status) = daemon.get("/v1/status").await;
    let promised = BTreeSet::from(["replay", "auth", "policy", "no_session", "spoof"]);
    assert!(keys(&status["drops"]).is_superset(&promised));
    assert_eq!(status["drops"]["replay"], 3);
    assert_eq!(status["drops"]["short"], 1);
}

#[tokio::test]
async fn peers_version_and_id_answer() {
    let daemon = Daemon::start(answer_snapshots);
    assert_eq!(daemon.get("/v1/peers").await.1["peers"][0]["name"], "nas");
    assert_eq!(daemon.get("/v1/version").await.1["schema"], 1);
    let (_, id) = daemon.get("/v1/id").await;
    assert_eq!(id["peer_id"], "07".repeat(32));
    assert_eq!(id["addresses"], serde_json::json!(["fd00::1", "10.100.3.7"]));
    assert_eq!(id["fingerprint"], "ab");
}

#[tokio::test]
async fn ping_passes_peer_and_timeout_and_answers_the_path() {
    let daemon = Daemon::start(|command| {
        let Command::Ping(peer, wait, reply) = command else { panic!("{command:?}") };
        assert_eq!((peer.0.as_str(), wait), ("na/s", Duration::from_millis(250)));
        let _ = reply.send(Ok(PingReply {
            kind: snapshot::PathKind::Direct,
            via: None,
            peer_id: PeerId::from_bytes([9; 32]),
            name: "nas".into(),
            rtt: Duration::from_micros(1500),
            remote: "203.0.113.5:41999".parse().unwrap(),
            why: "pinned endpoint".into(),
        }));
    });
    let (code, ping) = daemon.post("/v1/ping", r#"{"peer":"na/s","timeout_ms":250}"#).await;
    assert_eq!(code, 200);
    assert_eq!(ping["rtt_ms"], 1.5);
    assert_eq!(ping["kind"], "direct");
}

#[tokio::test]
async fn the_wait_for_a_ping_is_capped() {
    let daemon = Daemon::start(|command| {
        let Command::Ping(peer, wait, reply) = command else { return };
        assert_eq!(wait, Duration::from_secs(60));
        let _ = reply.send(Err(NodeError::UnknownPeer(peer.0)));
    });
    let (code, error) = daemon.post("/v1/ping", r#"{"peer":"x","timeout_ms":99999999}"#).await;
    assert_eq!((code, &error["code"]), (404, &"unknown-peer".into()));
}

#[tokio::test]
async fn who_pings_the_node_itself_is_told_so() {
    let daemon = Daemon::start(|command| {
        if let Command::Ping(peer, _, reply) = command {
            drop(reply.send(Err(NodeError::UnknownPeer(peer.0))));
        } else if let Command::Snapshot(reply) = command {
            drop(reply.send(a_snapshot()));
        }
    });
    let own = PeerId::from_bytes([7; 32]).to_string();
    let names = ["laptop", "Laptop.home.pqvpn", "10.100.3.7", &own];
    for (peer, is_own) in names.map(|name| (name, true)).into_iter().chain([("nobody", false)]) {
        let (code, error) = daemon.post("/v1/ping", &format!(r#"{{"peer":"{peer}","timeout_ms":1}}"#)).await;
        assert_eq!((code, &error["code"]), (404, &"unknown-peer".into()));
        assert_eq!(error["why"].as_str().unwrap().contains("is this node itself"), is_own, "{error}");
    }
}

#[tokio::test]
async fn a_failed_command_answers_what_why_and_try() {
    let daemon = Daemon::start(|command| {
        if let Command::Up(reply) = command {
            let _ = reply.send(Err(NodeError::Host("no /dev/net/tun".into())));
        } else if let Command::Rekey(peer, reply) = command {
            let _ = reply.send(Err(NodeError::NoSession(peer.0)));
        }
    });
    let (code, error) = daemon.post("/v1/up", "null").await;
    assert_eq!(code, 500);
    assert_eq!(keys(&error), BTreeSet::from(["code", "what", "why", "try"]));
    assert_eq!(error["why"], "no /dev/net/tun");
    let (code, error) = daemon.post("/v1/rekey", r#"{"peer":"nas"}"#).await;
    assert_eq!((code, &error["code"]), (409, &"no-session".into()));
}

#[tokio::test]
async fn set_says_from_when_it_holds() {
    let daemon = Daemon::start(|command| {
        let Command::Set(key, value, reply) = command else { panic!("{command:?}") };
        assert_eq!((key.as_str(), value.as_str()), ("crypto.rekey_seconds", "60"));
        let _ = reply.send(Ok(SetOutcome::AfterRestart));
    });
    let (code, setting) = daemon.post("/v1/set", r#"{"key":"crypto.rekey_seconds","value":"60"}"#).await;
    assert_eq!((code, &setting["outcome"]), (200, &"after-restart".into()));
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_typed_body() {
    let daemon = Daemon::start(|command| panic!("reached the node: {command:?}"));
    for (resource, body, status) in [
        ("/v1/ping", "{", 400),
        ("/v1/ping", r#"{"peer":"x","bogus":1}"#, 400),
        ("/v1/ping", r#"{}"#, 400),
        ("/v1/nothing", "{}", 404),
        ("/v1/status", "{}", 400),
    ] {
        let (code, error) = daemon.post(resource, body).await;
        assert_eq!(code, status, "{resource} {body}");
        assert_eq!(keys(&error), BTreeSet::from(["code", "what", "why", "try"]), "{resource} {body}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let daemon = Daemon::start(|command| panic!("reached the node: {command:?}"));
    let body = format!(r#"{{"peer":"{}"}}"#, "x".repeat(super::BODY_LIMIT));
    let (code, error) = daemon.post("/v1/rekey", &body).await;
    assert_eq!((code, &error["code"]), (400, &"bad-request".into()));
}

#[tokio::test]
async fn a_stopped_node_is_no_daemon() {
    let daemon = Daemon::start(drop);
    let (code, error) = daemon.get("/v1/status").await;
    assert_eq!((code, &error["code"]), (503, &"no-daemon".into()));
}

#[tokio::test]
async fn shutdown_answers_after_the_node_stopped() {
    let daemon = Daemon::start(|command| {
        let Command::Shutdown(_, reply) = command else { panic!("{command:?}") };
        let _ = reply.send(());
    });
    assert_eq!(daemon.post("/v1/shutdown", "null").await.0, 200);
}

#[tokio::test]
async fn serving_ends_and_the_socket_goes_when_told_to_stop() {
    let daemon = Daemon::start(answer_snapshots);
    let _idle = UnixStream::connect(&daemon.path).await.unwrap();
    daemon.stop.send(()).unwrap();
    daemon.served.await.unwrap();
    assert!(!daemon.path.exists());
}

fn apply_settings(command: Command) {
    let Command::Set(key, _, reply) = command else { panic!("{command:?}") };
    let refused = NodeError::BadSetting("not while running".into());
    let _ = reply.send(if key == "node.name" { Err(refused) } else { Ok(SetOutcome::Applied) });
}

#[tokio::test]
async fn a_setting_is_kept_in_the_file_with_its_comments_and_mode() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "# mine\n[crypto]\nrekey_seconds = 120\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let daemon = Daemon::keeping_settings_in(config.clone(), apply_settings);
    let (code, setting) = daemon.post("/v1/set", r#"{"key":"crypto.rekey_seconds","value":"60"}"#).await;
    assert_eq!((code, &setting["outcome"]), (200, &"applied".into()));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n[crypto]\nrekey_seconds = 60\n");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn what_the_daemon_was_started_with_is_told_and_what_is_set_since_is_in_it() {
    let settings = "[node]\nproxy = \"http://***@proxy:3128\"\n[crypto]\nrekey_seconds = 120\n".to_owned();
    let with = model::Started {
        schema: 1,
        pid: 7,
        state_dir: "/s".into(),
        ephemeral: true,
        config: Some("/c".into()),
        settings,
    };
    let daemon = Daemon::start_with(
        |service| service.started(with),
        |command| {
            let Command::Set(key, _, reply) = command else { panic!("{command:?}") };
            let later = key == "node.name";
            let _ = reply.send(Ok(if later { SetOutcome::AfterRestart } else { SetOutcome::Applied }));
        },
    );
    for (key, value) in [("crypto.rekey_seconds", "60"), ("node.name", "later")] {
        daemon.post("/v1/set", &format!(r#"{{"key":"{key}","value":"{value}"}}"#)).await;
    }
    let (_, started) = daemon.get("/v1/started").await;
    assert_eq!((&started["pid"], &started["state_dir"]), (&7.into(), &"/s".into()));
    assert_eq!((&started["ephemeral"], &started["config"]), (&true.into(), &"/c".into()));
    let settings = started["settings"].as_str().unwrap();
    assert!(settings.contains("rekey_seconds = 60") && !settings.contains("later"), "{settings}");
    let (code, error) = Daemon::start(answer_snapshots).get("/v1/started").await;
    assert_eq!((code, &error["code"]), (404, &"not-found".into()));
}

#[tokio::test]
async fn a_setting_in_force_is_told_also_where_the_file_could_not_keep_it() {
    let with = model::Started {
        schema: 1,
        pid: 7,
        state_dir: "/s".into(),
        ephemeral: false,
        config: None,
        settings: "[relay]\nenabled = false\n".to_owned(),
    };
    // Nobody makes a directory there, root included.
    let config = PathBuf::from("/proc/none/config.toml");
    let daemon = Daemon::start_with(|service| service.started(with).keeping_settings_in(config), apply_settings);
    let (code, error) = daemon.post("/v1/set", r#"{"key":"relay.enabled","value":"true"}"#).await;
    assert_eq!((code, &error["what"]), (500, &"the setting holds until the daemon stops, and was not kept".into()));
    let (_, started) = daemon.get("/v1/started").await;
    assert_eq!(started["settings"], "[relay]\nenabled = true\n");
}

#[tokio::test]
async fn a_setting_the_configuration_cannot_hold_does_not_reach_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let daemon = Daemon::keeping_settings_in(config.clone(), |command| panic!("reached the node: {command:?}"));
    for (key, value) in [("crypto.rekey_seconds", "1"), ("crypto.bogus", "1"), ("bogus", "1")] {
        let (code, error) = daemon.post("/v1/set", &format!(r#"{{"key":"{key}","value":"{value}"}}"#)).await;
        assert_eq!((code, &error["code"]), (400, &"bad-setting".into()), "{key}");
    }
    assert!(!config.exists());
}

#[tokio::test]
async fn a_setting_the_node_refuses_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "[node]\nname = \"old\"\n").unwrap();
    let daemon = Daemon::keeping_settings_in(config.clone(), apply_settings);
    let (code, error) = daemon.post("/v1/set", r#"{"key":"node.name","value":"new"}"#).await;
    assert_eq!((code, &error["why"]), (400, &"not while running".into()));
    assert_eq!(fs::read_to_string(&config).unwrap(), "[node]\nname = \"old\"\n");
}

#[tokio::test]
async fn settings_are_not_kept_in_yaml() {
    let daemon = Daemon::keeping_settings_in("/nowhere/config.yaml".into(), |command| panic!("{command:?}"));
    let (code, error) = daemon.post("/v1/set", r#"{"key":"crypto.rekey_seconds","value":"60"}"#).await;
    assert_eq!(code, 400);
    assert!(error["try"].as_str().unwrap().contains("config convert"));
}
