// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resources of the DHT and of its bootstrap nodes.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64;
use pqvpn_crypto::identity::{Identity, IdentitySeed};
use pqvpn_node::{
    bootstrap::{ListDraft, MAX_LIST, Shelf},
    config::{Config, DhtMode},
    dht::{
        AdmissionState, BucketReport, ContactReport, DhtError, DhtReport, DhtState, DoorReport, DoorSource, DoorState,
        EclipseReport, GetReport, LinkReport, LookupReport, LookupTarget, OwnRecord, PutReport, RecordContent,
        RecordRef, RecordReport, RpcReport, TableReport,
    },
    handle::{DhtCommand, PeerRef},
};
use pqvpn_wire::dht::{NetworkId, Point};
use serde_json::json;

use super::*;

const NAS: PeerId = PeerId::from_bytes([9; 32]);

fn a_record(content: RecordContent) -> RecordReport {
    let key = Point::from_bytes([3; 32]);
    RecordReport { key, owner: NAS, seq: 5, not_before_ms: 1, not_after_ms: 2, content }
}

fn a_contact() -> ContactReport {
    ContactReport {
        peer: NAS,
        node_id: Point::from_bytes([4; 32]),
        addresses: vec!["203.0.113.5:41641".parse().unwrap()],
        prefix_bits: 7,
        seen: Some(Duration::from_millis(1_540)),
    }
}

fn a_lookup() -> LookupReport {
    LookupReport {
        target: Point::from_bytes([3; 32]),
        closest: vec![a_contact()],
        asked: 9,
        answered: 8,
        failed: 1,
        rounds: 2,
        elapsed: Duration::from_micros(81_234),
        eclipse: EclipseReport::Suspect,
    }
}

pub(super) fn a_report() -> DhtReport {
    let content = RecordContent::Peer { addresses: vec!["203.0.113.1:1".parse().unwrap()], capabilities: 0 };
    DhtReport {
        enabled: true,
        state: DhtState::Joined,
        mode: DhtMode::Auto,
        network: NetworkId::OPEN,
        difficulty: 512,
        admission: AdmissionState::Solving { elapsed: Duration::from_millis(2_500), tried: 300 },
        node_id: Some(Point::from_bytes([4; 32])),
        addresses: vec!["203.0.113.1:1".parse().unwrap()],
        observed: None,
        contacts: 143,
        size_estimate: Some(1_204.06),
        links: LinkReport { outbound: 3, inbound: 4, dialing: 0 },
        rpc: RpcReport { sent: 10, answered: 9, failed: 1, served: 4, refused: 2 },
        lookups: (9, 1),
        tx_bytes: 11,
        rx_bytes: 12,
        serving: false,
        eclipse: EclipseReport::Normal,
        stored_records: 6,
        stored_bytes: 700,
        own_records: vec![OwnRecord { record: a_record(content), stored: Some(20) }],
        doors: (5, 3),
        counters: vec![("forged-record", 2), ("replayed", 0)],
    }
}

/// Answers the DHT's commands as a node would that knows only `nas`.
fn play(command: Command) {
    let Command::Dht(command) = command else { panic!("{command:?}") };
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not expected here fails the test")]
    match command {
        DhtCommand::Status(reply) => drop(reply.send(a_report())),
        DhtCommand::Get(what, reply) => drop(reply.send(got(&what))),
        DhtCommand::Put(name, value, reply) => {
            let record = a_record(RecordContent::Value { name, value });
            drop(reply.send(Ok(PutReport { record, stored: 20, lookup: a_lookup() })));
        }
        DhtCommand::Lookup(LookupTarget::Peer(PeerRef(peer)), reply) if peer != "nas" => {
            drop(reply.send(Err(NodeError::UnknownPeer(peer))));
        }
        DhtCommand::Lookup(_, reply) => drop(reply.send(Ok(a_lookup()))),
        DhtCommand::Table(reply) => {
            let bucket = BucketReport { prefix_bits: 7, contacts: vec![a_contact()], replacements: 2 };
            drop(reply.send(Ok(TableReport { own: None, buckets: vec![bucket] })));
        }
        DhtCommand::Doors(reply) => drop(reply.send(Ok(vec![a_door()]))),
        other => panic!("{other:?}"),
    }
}

fn got(what: &RecordRef) -> Result<GetReport, NodeError> {
    let peer = RecordContent::Peer { addresses: vec!["203.0.113.5:41641".parse().unwrap()], capabilities: 1 };
    let content = match what {
        RecordRef::Peer(PeerRef(peer)) if peer != "nas" => return Err(DhtError::Alone.into()),
        RecordRef::Peer(_) => Some(peer),
        RecordRef::Value { owner: None, name } => Some(RecordContent::Value { name: name.clone(), value: vec![0xff] }),
        RecordRef::Value { owner: Some(_), name } => {
            Some(RecordContent::Value { name: name.clone(), value: b"hi".to_vec() })
        }
        RecordRef::Key(_) => None,
    };
    let first = content.is_some().then_some(Duration::from_millis(34));
    Ok(GetReport { record: content.map(a_record), sources: 3, first, successor: None, lookup: a_lookup() })
}

fn a_door() -> DoorReport {
    DoorReport {
        peer: NAS,
        endpoints: vec!["seed.example:41641".into()],
        sources: vec![DoorSource::Config, DoorSource::Lan],
        expires_ms: None,
        state: DoorState::Failed { age: Duration::from_secs(4), why: "no answer".into() },
        verified_ms: Some(7),
        answered_at: Some("198.51.100.7:1".parse().unwrap()),
    }
}

#[tokio::test]
async fn dht_status_has_the_promised_shape() {
    let daemon = Daemon::start(play);
    let (code, status) = daemon.get("/v1/dht/status").await;
    assert_eq!((code, &status["schema"]), (200, &1.into()));
    assert_eq!(status["state"], "joined");
    assert_eq!(status["contacts"], 143);
    assert_eq!(status["admission"], json!({"state": "solving", "elapsed_s": 2.5, "tried": 300}));
    assert_eq!((&status["serving"], &status["why"]), (&false.into(), &"the proof of work is not done yet".into()));
    assert_eq!(status["own_records"][0]["stored"], 20);
    assert_eq!(status["own_records"][0]["kind"], "peer");
    assert_eq!(status["counters"], json!({"forged-record": 2, "replayed": 0}));
    assert_eq!(status["doors"], json!({"known": 5, "working": 3}));
    assert_eq!((&status["network"], &status["eclipse"]), (&"open".into(), &"normal".into()));
    assert_eq!(status["size_estimate"], 1204.1);
    assert_eq!((&status["tx_bytes"], &status["rx_bytes"]), (&11.into(), &12.into()));
}

#[tokio::test]
async fn dht_get_answers_record_sources_and_what_the_lookup_did() {
    let daemon = Daemon::start(play);
    let (code, got) = daemon.post("/v1/dht/get", r#"{"owner":"nas"}"#).await;
    assert_eq!(code, 200);
    assert_eq!(got["record"]["addresses"], json!(["203.0.113.5:41641"]));
    assert_eq!((&got["sources"], &got["first_ms"]), (&3.into(), &34.0.into()));
    assert_eq!(got["lookup"]["elapsed_ms"], 81.234);
    assert_eq!((&got["lookup"]["rounds"], &got["lookup"]["failed"]), (&2.into(), &1.into()));
    assert_eq!(got["lookup"]["closest"][0]["seen_s"], 1.5);
    let (_, got) = daemon.post("/v1/dht/get", r#"{"owner":"nas","name":"motd"}"#).await;
    assert_eq!((&got["record"]["value"], &got["record"]["value_hex"]), (&"hi".into(), &"6869".into()));
    let (_, got) = daemon.post("/v1/dht/get", r#"{"name":"own"}"#).await;
    assert_eq!((&got["record"]["value"], &got["record"]["value_hex"]), (&Value::Null, &"ff".into()));
    let (code, got) = daemon.post("/v1/dht/get", &format!(r#"{{"key":"{}"}}"#, "03".repeat(32))).await;
    assert_eq!((code, &got["record"], &got["first_ms"]), (200, &Value::Null, &Value::Null));
}

#[tokio::test]
async fn dht_put_lookup_and_table_answer() {
    let daemon = Daemon::start(play);
    let (code, put) = daemon.post("/v1/dht/put", r#"{"name":"motd","value":"hello"}"#).await;
    assert_eq!((code, &put["record"]["value"], &put["stored"]), (200, &"hello".into(), &20.into()));
    let (_, put) = daemon.post("/v1/dht/put", r#"{"name":"motd","value_hex":"00ff"}"#).await;
    assert_eq!(put["record"]["value_hex"], "00ff");
    let (code, found) = daemon.post("/v1/dht/lookup", r#"{"peer":"nas"}"#).await;
    assert_eq!((code, &found["answered"], &found["eclipse"]), (200, &8.into(), &"suspect".into()));
    let (code, table) = daemon.get("/v1/dht/table").await;
    assert_eq!((code, &table["own"], &table["buckets"][0]["replacements"]), (200, &Value::Null, &2.into()));
    assert_eq!(table["buckets"][0]["contacts"][0]["peer_id"], NAS.to_string());
}

#[tokio::test]
async fn malformed_requests_do_not_reach_the_dht() {
    let daemon = Daemon::start(|command| panic!("reached the node: {command:?}"));
    let key = "03".repeat(32);
    for (resource, body) in [
        ("get", "{}".to_owned()),
        ("get", format!(r#"{{"owner":"nas","key":"{key}"}}"#)),
        ("get", format!(r#"{{"name":"x","key":"{key}"}}"#)),
        ("get", r#"{"key":"0303"}"#.to_owned()),
        ("get", format!(r#"{{"key":"{}"}}"#, key.replace('3', "Q"))),
        ("get", r#"{"owner":"nas","bogus":1}"#.to_owned()),
        ("put", r#"{"name":"x"}"#.to_owned()),
        ("put", r#"{"value":"x"}"#.to_owned()),
        ("put", r#"{"name":"x","value":"y","value_hex":"00"}"#.to_owned()),
        ("put", r#"{"name":"x","value_hex":"0"}"#.to_owned()),
        ("put", r#"{"name":"x","value_hex":"FF"}"#.to_owned()),
        ("lookup", "{}".to_owned()),
        ("lookup", format!(r#"{{"peer":"nas","key":"{key}"}}"#)),
        ("lookup", r#"{"key":""}"#.to_owned()),
    ] {
        let (code, error) = daemon.post(&format!("/v1/dht/{resource}"), &body).await;
        assert_eq!((code, &error["code"]), (400, &"bad-request".into()), "{resource} {body}");
        assert_eq!(keys(&error), BTreeSet::from(["code", "what", "why", "try"]), "{resource} {body}");
    }
}

#[tokio::test]
async fn what_the_dht_refuses_has_its_code() {
    let daemon = Daemon::start(play);
    let (code, error) = daemon.post("/v1/dht/get", r#"{"owner":"stranger"}"#).await;
    assert_eq!((code, &error["code"]), (409, &"dht-alone".into()));
    let (code, error) = daemon.post("/v1/dht/lookup", r#"{"peer":"stranger"}"#).await;
    assert_eq!((code, &error["code"]), (404, &"unknown-peer".into()));
    for (refused, status, name) in [
        (DhtError::Off, 409, "dht-off"),
        (DhtError::NoAnswer, 504, "no-answer"),
        (DhtError::Busy, 429, "busy"),
        (DhtError::BadName { len: 65, max: 64 }, 400, "bad-request"),
        (DhtError::ValueTooLong { len: 513, max: 512 }, 400, "bad-request"),
        (DhtError::TooManyValues(64), 500, "failed"),
        (DhtError::Disk("full".into()), 500, "host"),
    ] {
        let daemon = Daemon::start(move |command| {
            let Command::Dht(DhtCommand::Put(_, _, reply)) = command else { panic!("{command:?}") };
            let _ = reply.send(Err(refused.clone().into()));
        });
        let (code, error) = daemon.post("/v1/dht/put", r#"{"name":"x","value":"y"}"#).await;
        assert_eq!((code, &error["code"]), (status, &name.into()));
    }
}

/// A daemon that keeps its bootstrap nodes below `state` and tries those it is given.
fn keeping(state: &Path, config: &Config) -> (Daemon, std::sync::mpsc::Receiver<usize>) {
    let (tried, tries) = std::sync::mpsc::channel();
    let shelf = Shelf::of(config, state);
    let daemon = Daemon::start_with(
        |service| service.keeping_bootstrap_on(shelf),
        move |command| {
            if let Command::Dht(DhtCommand::AddDoors(doors, reply)) = command {
                tried.send(doors.len()).unwrap();
                drop(reply.send(Ok(doors.len())));
            } else {
                play(command);
            }
        },
    );
    (daemon, tries)
}

fn entry(number: u8) -> String {
    format!("pqvpn://{}@198.51.100.{number}:41641", "ab".repeat(32))
}

fn a_list(issued_ms: u64) -> Vec<u8> {
    let identity = Identity::from_seed(&IdentitySeed::from_bytes(&[1; 64])).unwrap();
    let entries = vec![entry(1).parse().unwrap(), entry(2).parse().unwrap()];
    let draft = ListDraft { network: NetworkId::OPEN, issued_ms, expires_ms: issued_ms + 86_400_000, entries };
    draft.sign(&identity).unwrap().as_bytes().to_vec()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

#[tokio::test]
async fn an_added_entry_is_kept_and_tried() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, tries) = keeping(dir.path(), &Config::default());
    let (code, added) = daemon.post("/v1/bootstrap", &json!({"entries": [entry(1), entry(2)]}).to_string()).await;
    assert_eq!((code, &added["added"], &added["tried"]), (200, &2.into(), &true.into()));
    assert_eq!(tries.recv().unwrap(), 2);
    let kept = Shelf::of(&Config::default(), dir.path()).added().unwrap();
    assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), [entry(1), entry(2)]);
}

#[tokio::test]
async fn what_is_newly_kept_was_added_though_the_dht_knew_it() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(&Config::default(), dir.path());
    let daemon = Daemon::start_with(
        |service| service.keeping_bootstrap_on(shelf),
        move |command| {
            let Command::Dht(DhtCommand::AddDoors(_, reply)) = command else { panic!("{command:?}") };
            drop(reply.send(Ok(0)));
        },
    );
    for added in [1, 0] {
        let (code, answer) = daemon.post("/v1/bootstrap", &json!({"entries": [entry(1)]}).to_string()).await;
        assert_eq!((code, &answer["added"], &answer["tried"]), (200, &added.into(), &true.into()));
    }
}

#[tokio::test]
async fn a_list_is_added_only_when_its_signer_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, tries) = keeping(dir.path(), &Config::default());
    let list = BASE64.encode(&a_list(now_ms()));
    let (code, error) = daemon.post("/v1/bootstrap", &json!({"list": list}).to_string()).await;
    assert_eq!((code, &error["code"]), (403, &"refused".into()));
    assert!(error["why"].as_str().unwrap().contains("bootstrap.signers"), "{error}");
    assert!(tries.try_recv().is_err() && Shelf::of(&Config::default(), dir.path()).lists().is_empty());
    let (code, added) = daemon.post("/v1/bootstrap", &json!({"list": list, "trust": true}).to_string()).await;
    assert_eq!((code, &added["newly_trusted"], &added["warning"]), (200, &true.into(), &Value::Null));
    assert_eq!(tries.recv().unwrap(), 2);
    let (_, shown) = daemon.get("/v1/bootstrap").await;
    assert_eq!((&shown["lists"][0]["entries"], &shown["lists"][0]["signer"]), (&2.into(), &added["signer"]));
    let door = &shown["doors"][0];
    assert_eq!((&door["state"], &door["why"], &door["age_s"]), (&"failed".into(), &"no answer".into(), &4.0.into()));
    assert_eq!((&door["sources"], &door["verified_ms"]), (&json!(["config", "lan"]), &7.into()));
    assert_eq!(door["answered_at"], "198.51.100.7:1");
}

#[tokio::test]
async fn an_old_list_is_taken_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, _tries) = keeping(dir.path(), &Config::default());
    let list = BASE64.encode(&a_list(1_500_000_000_000));
    let (code, added) = daemon.post("/v1/bootstrap", &json!({"list": list, "trust": true}).to_string()).await;
    assert_eq!(code, 200);
    assert!(added["warning"].as_str().unwrap().contains("expired"), "{added}");
}

#[tokio::test]
async fn bad_bootstrap_requests_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, tries) = keeping(dir.path(), &Config::default());
    let mut tampered = a_list(now_ms());
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let own = format!("pqvpn://{}@198.51.100.1:1", "07".repeat(32));
    for body in [
        json!({}),
        json!({"entries": ["seed.example:1"]}),
        json!({"entries": [entry(1), "nonsense"]}),
        json!({"entries": [own]}),
        json!({"entries": [entry(1)], "list": "AA=="}),
        json!({"list": "*"}),
        json!({"list": BASE64.encode(b"not a list"), "trust": true}),
        json!({"list": BASE64.encode(&tampered), "trust": true}),
        json!({"list": BASE64.encode(&vec![0; MAX_LIST + 1]), "trust": true}),
        json!({"list": "A".repeat(crate::server::bootstrap::BODY_LIMIT)}),
        json!({"entries": [entry(1)], "bogus": 1}),
    ] {
        let body = body.to_string();
        let (code, error) = daemon.post("/v1/bootstrap", &body).await;
        let shown = body.chars().take(80).collect::<String>();
        assert_eq!((code, &error["code"]), (400, &"bad-request".into()), "{shown}: {error}");
    }
    assert!(tries.try_recv().is_err());
    assert!(!dir.path().join("bootstrap").exists());
}

#[tokio::test]
async fn a_node_whose_dht_is_off_keeps_what_is_added_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(&Config::default(), dir.path());
    let daemon = Daemon::start_with(
        |service| service.keeping_bootstrap_on(shelf),
        |command| {
            if let Command::Dht(DhtCommand::AddDoors(_, reply)) = command {
                drop(reply.send(Err(DhtError::Off.into())));
            } else if let Command::Dht(DhtCommand::Doors(reply)) = command {
                drop(reply.send(Err(DhtError::Off.into())));
            }
        },
    );
    let (code, added) = daemon.post("/v1/bootstrap", &json!({"entries": [entry(1)]}).to_string()).await;
    assert_eq!((code, &added["added"], &added["tried"]), (200, &1.into(), &false.into()));
    let (code, shown) = daemon.get("/v1/bootstrap").await;
    assert_eq!((code, &shown["enabled"], &shown["doors"]), (200, &false.into(), &json!([])));
}
