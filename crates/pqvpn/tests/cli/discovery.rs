// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht` and `bootstrap`: against the real control server in front of a node this test plays, and without a daemon.

use std::{fs, path::Path, time::Duration};

use pqvpn_api::{
    model,
    server::{Access, ControlSocket, Service, serve},
};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::{
    bootstrap::Shelf,
    config::{Config, DhtMode},
    dht::{
        AdmissionState, BucketReport, ContactReport, DhtError, DhtReport, DhtState, DoorReport, DoorSource, DoorState,
        EclipseReport, GetReport, LinkReport, LookupReport, LookupTarget, PutReport, RecordContent, RecordRef,
        RecordReport, RpcReport, TableReport,
    },
    handle::{Command, DhtCommand, NodeHandle, PeerRef},
};
use pqvpn_wire::dht::{NetworkId, Point};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::sandbox::{Run, Sandbox};

const NAS: PeerId = PeerId::from_bytes([9; 32]);
const PEER_8: PeerId = PeerId::from_bytes([8; 32]);
/// In the table, and no door.
const MET: PeerId = PeerId::from_bytes([10; 32]);

struct Fixture {
    sandbox: Sandbox,
    _runtime: Runtime,
}

impl Fixture {
    fn start() -> Self {
        let (sandbox, runtime) = Sandbox::serving();
        fs::create_dir(sandbox.path("state")).unwrap();
        let entered = runtime.enter();
        let (tx, mut rx) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(command) = rx.recv().await {
                if let Command::Dht(command) = command {
                    play(command);
                }
            }
        });
        let access = Access::of_this_process();
        let socket = ControlSocket::bind(&sandbox.socket(), &access).unwrap();
        let shelf = Shelf::of(&Config::default(), &sandbox.path("state"));
        let service = Service::new(NodeHandle::new(tx), identity()).keeping_bootstrap_on(shelf);
        tokio::spawn(serve(socket, access, service, std::future::pending()));
        drop(entered);
        Self { sandbox, _runtime: runtime }
    }

    fn run(&self, line: &[&str]) -> Run {
        self.sandbox.run(line)
    }
}

fn identity() -> model::Identity {
    let peer_id = PeerId::from_bytes([7; 32]).to_string();
    let name = "laptop".to_owned();
    model::Identity { schema: 1, peer_id, name, addresses: Vec::new(), fingerprint: "ab".into(), state_dir: None }
}

fn play(command: DhtCommand) {
    match command {
        DhtCommand::Status(reply) => drop(reply.send(status())),
        DhtCommand::Get(what, reply) => drop(reply.send(match what {
            RecordRef::Peer(PeerRef(peer)) if peer == "alone" => Err(DhtError::Alone.into()),
            RecordRef::Peer(PeerRef(peer)) if peer == "silence" => {
                Ok(GetReport { lookup: silence(), sources: 0, ..got(None) })
            }
            RecordRef::Peer(PeerRef(peer)) if peer == "moved" => {
                Ok(GetReport { lookup: silence(), sources: 0, successor: Some(MET), ..got(None) })
            }
            RecordRef::Peer(_) => Ok(got(Some(RecordContent::Peer { addresses: addresses(), capabilities: 0 }))),
            RecordRef::Value { name, .. } => {
                Ok(got(Some(RecordContent::Value { name, value: b"be\x1b[2Jware".to_vec() })))
            }
            RecordRef::Key(_) => Ok(got(None)),
        })),
        DhtCommand::Put(name, value, reply) => {
            let stored = if matches!(&*name, "unwanted" | "silence") { 0 } else { 20 };
            let lookup = if name == "silence" { silence() } else { lookup() };
            let record = record(RecordContent::Value { name, value });
            drop(reply.send(Ok(PutReport { record, stored, lookup })));
        }
        DhtCommand::Lookup(LookupTarget::Peer(PeerRef(peer)), reply) if peer == "silence" => {
            drop(reply.send(Ok(silence())));
        }
        DhtCommand::Lookup(_, reply) => drop(reply.send(Ok(lookup()))),
        DhtCommand::Table(reply) => {
            let bucket = BucketReport { prefix_bits: 7, contacts: vec![contact()], replacements: 2 };
            drop(reply.send(Ok(TableReport { own: Some(Point::from_bytes([4; 32])), buckets: vec![bucket] })));
        }
        DhtCommand::Doors(reply) => drop(reply.send(Ok(doors()))),
        DhtCommand::AddDoors(doors, reply) => drop(reply.send(Ok(doors.len()))),
        DhtCommand::RemoveDoors(doors, reply) => drop(reply.send(Ok(doors.len()))),
        other => panic!("{other:?}"),
    }
}

fn addresses() -> Vec<std::net::SocketAddr> {
    vec!["203.0.113.5:41641".parse().unwrap()]
}

fn record(content: RecordContent) -> RecordReport {
    let key = Point::from_bytes([3; 32]);
    RecordReport { key, owner: NAS, seq: 5, not_before_ms: 1, not_after_ms: u64::MAX, content }
}

fn got(content: Option<RecordContent>) -> GetReport {
    let first = content.is_some().then_some(Duration::from_millis(34));
    GetReport { record: content.map(record), sources: 3, first, successor: None, lookup: lookup() }
}

fn contact() -> ContactReport {
    let seen = Some(Duration::from_secs(12));
    let node_id = Point::from_bytes([4; 32]);
    ContactReport { peer: MET, node_id, addresses: addresses(), prefix_bits: 7, seen }
}

fn lookup() -> LookupReport {
    LookupReport {
        target: Point::from_bytes([3; 32]),
        closest: vec![contact()],
        asked: 9,
        answered: 8,
        failed: 1,
        rounds: 2,
        elapsed: Duration::from_micros(81_234),
        eclipse: EclipseReport::Eclipse,
    }
}

/// Nobody who was asked answered.
fn silence() -> LookupReport {
    LookupReport { closest: Vec::new(), answered: 0, ..lookup() }
}

fn doors() -> Vec<DoorReport> {
    let door = |endpoint: &str, peer, source, state, answered_at| DoorReport {
        peer,
        endpoints: vec![endpoint.into()],
        sources: vec![source],
        expires_ms: None,
        state,
        verified_ms: None,
        answered_at,
    };
    let failed = DoorState::Failed { age: Duration::from_secs(4), why: "no answer\x1b[2J".into() };
    let working = DoorState::Working { age: Duration::from_secs(4) };
    vec![
        door("seed.example:41641", NAS, DoorSource::Config, failed, None),
        // Said to be at one place, met at another.
        door("192.168.1.66:1", PEER_8, DoorSource::Lan, working, "192.168.1.7:41641".parse().ok()),
    ]
}

fn status() -> DhtReport {
    DhtReport {
        enabled: true,
        state: DhtState::Joined,
        mode: DhtMode::Auto,
        network: NetworkId::OPEN,
        difficulty: 512,
        admission: AdmissionState::Solved { week: 2_941, until_ms: u64::MAX },
        node_id: Some(Point::from_bytes([4; 32])),
        addresses: addresses(),
        observed: None,
        contacts: 143,
        size_estimate: Some(1_204.0),
        links: LinkReport::default(),
        rpc: RpcReport::default(),
        lookups: (9, 1),
        tx_bytes: 2_048,
        rx_bytes: 12,
        serving: true,
        eclipse: EclipseReport::Normal,
        stored_records: 6,
        stored_bytes: 700,
        own_records: Vec::new(),
        doors: (2, 1),
        counters: vec![("forged-record", 2), ("replayed", 0)],
    }
}

fn entry(number: u8) -> String {
    format!("pqvpn://{}@198.51.100.{number}:41641", "ab".repeat(32))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn dht_status_shows_what_an_operator_needs() {
    let fixture = Fixture::start();
    let shown = fixture.run(&["dht", "status"]).succeeded().stdout;
    for needle in [
        "joined, serves: others can reach this node",
        "week 2941",
        &"04".repeat(32),
        "143 contacts",
        "about 1204 nodes",
        "2 known, 1 working: 192.168.1.7:41641 (lan)",
        "# refused: forged-record 2",
    ] {
        assert!(shown.contains(needle), "{needle}: {shown}");
    }
    assert!(!shown.contains("replayed"), "{shown}");
    let json = fixture.run(&["dht", "status", "--json"]).succeeded().json();
    assert_eq!(
        (&json["schema"], &json["state"], &json["admission"]["state"]),
        (&1.into(), &"joined".into(), &"solved".into())
    );
}

#[test]
fn dht_get_prints_a_record_and_terminal_tricks_do_not_pass() {
    let fixture = Fixture::start();
    let shown = fixture.run(&["dht", "get", "nas"]).succeeded().stdout;
    assert!(shown.contains("203.0.113.5:41641") && shown.contains("the first after 34.0 ms"), "{shown}");
    let shown = fixture.run(&["dht", "get", "nas/motd"]).succeeded().stdout;
    assert!(shown.contains("be?[2Jware") && !shown.contains('\x1b'), "{shown}");
    let json = fixture.run(&["dht", "get", "/motd", "--json"]).succeeded().json();
    assert_eq!((&json["record"]["name"], &json["first_ms"]), (&"motd".into(), &34.0.into()));
}

#[test]
fn a_record_nobody_has_is_a_failure_with_the_whole_answer() {
    let fixture = Fixture::start();
    let key = "03".repeat(32);
    fixture.run(&["dht", "get", "--key", &key]).failed(1, "none of the answers, 8 in all");
    let run = fixture.run(&["dht", "get", "--key", &key, "--json"]).failed(1, "none of the answers, 8 in all");
    let json = run.json();
    assert!(json["record"].is_null() && json["lookup"]["answered"] == 8, "{json}");
}

#[test]
fn dht_put_lookup_and_table_print_what_happened() {
    let fixture = Fixture::start();
    let put = fixture.run(&["dht", "put", "motd", "-5 degrees", "--json"]).succeeded().json();
    assert_eq!((&put["record"]["value"], &put["stored"]), (&"-5 degrees".into(), &20.into()));
    let shown = fixture.run(&["dht", "lookup", "nas"]).succeeded().stdout;
    assert!(shown.contains("8 of 9 nodes asked answered, 1 did not; 2 rounds, 81.2 ms"), "{shown}");
    assert!(shown.contains("besieged") && shown.contains(&MET.to_string()), "{shown}");
    let json = fixture.run(&["dht", "lookup", "--key", &"03".repeat(32), "--json"]).succeeded().json();
    assert_eq!((&json["rounds"], &json["eclipse"]), (&2.into(), &"eclipse".into()));
    let shown = fixture.run(&["dht", "table"]).succeeded().stdout;
    assert!(shown.contains("1 contact in 1 bucket\n") && shown.contains("12s ago"), "{shown}");
}

#[test]
fn a_value_nobody_took_and_a_lookup_nobody_answered_are_failures_with_the_whole_answer() {
    let fixture = Fixture::start();
    let put = ["dht", "put", "unwanted", "x"];
    let shown = fixture.run(&put).failed(1, "none took it").stderr;
    for needle in ["error: nobody keeps it yet", "why: asked 9 nodes, none took it: busy or silent", "offered again"] {
        assert!(shown.contains(needle), "{needle}: {shown}");
    }
    let json = fixture.run(&[&put[..], &["--json"]].concat()).failed(1, "none took it").json();
    assert_eq!((&json["stored"], &json["record"]["name"]), (&0.into(), &"unwanted".into()));
    assert_eq!(json["error"]["code"], "not-stored");
    // Silence is one thing, whatever was asked: nobody said that there is nothing, or that it is unwanted.
    for line in [&["dht", "lookup", "silence"][..], &["dht", "get", "silence"], &["dht", "put", "silence", "x"]] {
        fixture.run(line).failed(1, "asked 9 nodes, none answered");
        let json = fixture.run(&[line, &["--json"]].concat()).failed(1, "asked 9 nodes, none answered").json();
        let lookup = if json["lookup"].is_null() { &json } else { &json["lookup"] };
        assert_eq!(lookup["answered"], 0, "{json}");
        let error = &json["error"];
        assert_eq!((&error["code"], &error["why"]), (&"no-answer".into(), &"asked 9 nodes, none answered".into()));
    }
    let silent = |line: &[&str]| fixture.run(line).failed(1, "asked 9 nodes, none answered").stderr;
    let put = silent(&["dht", "put", "silence", "x"]);
    assert!(put.contains("offered again while the daemon runs"), "it is signed and kept: {put}");
    let moved = silent(&["dht", "get", "moved"]);
    assert!(moved.contains(&format!("rotated its key to {MET}")), "{moved}");
    assert!(moved.contains(&format!("try: `pqvpn dht get {MET}`")), "{moved}");
}

#[test]
fn a_value_comes_from_standard_input() {
    let fixture = Fixture::start();
    let file = fixture.sandbox.path("value");
    fs::write(&file, [0, 255, 10]).unwrap();
    let mut command = fixture.sandbox.command(&["dht", "put", "blob", "-", "--json"]);
    let put = Run::of(command.stdin(fs::File::open(&file).unwrap())).succeeded().json();
    assert_eq!((&put["record"]["value_hex"], &put["record"]["value"]), (&"00ff0a".into(), &Value::Null));
}

#[test]
fn what_the_dht_refuses_has_its_exit_code() {
    let fixture = Fixture::start();
    fixture.run(&["dht", "get", "alone"]).failed(1, "bootstrap add");
    fixture.run(&["dht", "get", "nas/"]).failed(2, "a name is missing");
    fixture.run(&["dht", "get", "--key", "abc"]).failed(2, "64 lowercase hex digits");
    fixture.run(&["dht", "lookup", "--key", "abc"]).failed(2, "64 lowercase hex digits");
    fixture.run(&["dht", "put", "x"]).failed(2, "<VALUE>");
    let sandbox = Sandbox::new();
    sandbox.run(&["dht", "put", "x", &"v".repeat(513)]).failed(2, "longer than 512 bytes");
    sandbox.run(&["dht", "put", "x", &"v".repeat(512)]).failed(3, "");
    Sandbox::new().run(&["dht", "status"]).failed(3, "nobody listens");
    Sandbox::new().run(&["bootstrap", "list"]).failed(3, "nobody listens");
}

#[test]
fn bootstrap_list_shows_each_door_and_each_list() {
    let fixture = Fixture::start();
    let list = fixture.sandbox.path("bad.list");
    fs::write(&list, "PQVPN-LIST/9\nx").unwrap();
    fixture.run(&["bootstrap", "add", "--trust", text(&list)]).failed(2, "version this program does not know");
    let shown = fixture.run(&["bootstrap", "list"]).succeeded().stdout;
    assert!(shown.contains("failed 4s ago: no answer?[2J") && shown.contains("answered 4s ago"), "{shown}");
    let json = fixture.run(&["bootstrap", "list", "--json"]).succeeded().json();
    assert_eq!((&json["doors"][1]["state"], &json["doors"][1]["sources"][0]), (&"working".into(), &"lan".into()));
}

#[test]
fn what_is_exported_signed_and_added_elsewhere_is_what_was_met() {
    let fixture = Fixture::start();
    let file = fixture.sandbox.path("nodes.txt");
    let json = fixture.run(&["bootstrap", "export", text(&file), "--json"]).succeeded().json();
    let met = [format!("pqvpn://{}@192.168.1.7:41641", "08".repeat(32)), format!("pqvpn://{MET}@203.0.113.5:41641")];
    assert_eq!(json["entries"], serde_json::json!(met));
    for line in [&["bootstrap", "export"][..], &["bootstrap", "export", "-"]] {
        let shown = fixture.run(line).succeeded().stdout;
        assert_eq!(shown, fs::read_to_string(&file).unwrap());
    }
    assert!(!Path::new("-").exists());
    let written = fs::read(&file).unwrap();
    fs::write(&file, "mine").unwrap();
    fixture.run(&["bootstrap", "export", text(&file)]).failed(1, "exists already");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    fixture.run(&["bootstrap", "export", "--force", text(&file)]).succeeded();
    assert_eq!(fs::read(&file).unwrap(), written);

    fixture.run(&["bootstrap", "sign", text(&file)]).failed(1, "does not exist");
    let signer = Sandbox::new();
    signer.run(&["id"]).succeeded();
    let signed = signer.run(&["bootstrap", "sign", text(&file), "--json"]).succeeded().json();
    assert_eq!(signed["entries"], 2);
    let list = file.with_extension("list");
    assert_eq!(signed["path"], text(&list));
    signer.run(&["bootstrap", "sign", text(&file)]).failed(1, "exists already");
    let signed = signer.run(&["bootstrap", "sign", text(&file), "--force", "--json"]).succeeded().json();
    for line in [&["-"][..], &[text(&file), "--out", "-"]] {
        signer.run(&[&["bootstrap", "sign"], line].concat()).failed(2, "`-` is none");
    }

    // By the daemon of one, and onto the shelf of another that does not run.
    let other = Sandbox::new();
    for sandbox in [&fixture.sandbox, &other] {
        sandbox.run(&["bootstrap", "add", text(&list)]).failed(4, "not in bootstrap.signers");
        let added = sandbox.run(&["bootstrap", "add", "--trust", text(&list), "--json"]).succeeded().json();
        assert_eq!((&added["signer"], &added["newly_trusted"]), (&signed["signer"], &true.into()));
        let kept = Shelf::of(&Config::default(), &sandbox.path("state")).lists();
        assert_eq!(kept[0].list.as_ref().unwrap().draft().entries.len(), 2);
    }
    let json = fixture.run(&["bootstrap", "list", "--json"]).succeeded().json();
    assert_eq!((&json["lists"][0]["entries"], &json["lists"][0]["remark"]), (&2.into(), &Value::Null));
}

#[test]
fn entries_are_added_with_and_without_a_daemon_and_stay() {
    let fixture = Fixture::start();
    let other = Sandbox::new();
    for (sandbox, tried) in [(&fixture.sandbox, true), (&other, false)] {
        let added = sandbox.run(&["bootstrap", "add", &entry(1), "--json"]).succeeded().json();
        assert_eq!((&added["added"], &added["tried"]), (&1.into(), &tried.into()));
        let file = sandbox.write("nodes", &format!("# two\n{}\n{}\n", entry(1), entry(2)));
        sandbox.run(&["bootstrap", "add", text(&file)]).succeeded();
        let kept = Shelf::of(&Config::default(), &sandbox.path("state")).added().unwrap();
        assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), [entry(1), entry(2)]);
    }
}

#[test]
fn what_is_no_entry_and_no_file_of_them_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    for (what, needle) in [
        ("seed.example:41641", "who must answer"),
        ("pqvpn://abc@seed.example:41641", "found 3 characters"),
        ("/nowhere/at-all", "expected \"pqvpn://"),
        (entry(1).trim_end_matches(":41641"), "found no port"),
    ] {
        sandbox.run(&["bootstrap", "add", what]).failed(2, needle);
    }
    let empty = sandbox.write("empty", "# nothing\n");
    let wrong = sandbox.write("wrong", &format!("{}\nnonsense\n", entry(1)));
    let twice = sandbox.write("twice", &format!("{0}\n{0}\n", entry(1)));
    let many = sandbox.write("many", &(1..=65).map(|number| entry(number) + "\n").collect::<String>());
    let huge = sandbox.write("huge", &"#".repeat(65 * 1024));
    for (file, needle) in [
        (&empty, "no entry in it"),
        (&wrong, "line 2: expected"),
        (&twice, "line 2: the same entry"),
        (&many, "more than 64"),
        (&huge, "larger than"),
    ] {
        sandbox.run(&["bootstrap", "add", text(file)]).failed(2, needle);
        sandbox.run(&["bootstrap", "sign", text(file)]).failed(2, needle);
    }
    assert!(!sandbox.path("state/bootstrap").exists());
    let good = sandbox.write("good.list", &entry(1));
    sandbox.run(&["bootstrap", "sign", text(&good)]).failed(2, "would replace");
    sandbox.run(&["bootstrap", "sign", text(&good), "--days", "0"]).failed(2, "0 is not in 1..=3650");
    sandbox.run(&["bootstrap", "sign", "/nowhere/at-all"]).failed(1, "No such file");
}

#[test]
fn what_was_added_is_removed_with_and_without_a_daemon() {
    let fixture = Fixture::start();
    let offline = Sandbox::new();
    for (sandbox, dropped) in [(&fixture.sandbox, Value::from(1)), (&offline, Value::Null)] {
        sandbox.run(&["bootstrap", "add", &entry(1)]).succeeded();
        sandbox.run(&["bootstrap", "add", &entry(2)]).succeeded();
        let removed = sandbox.run(&["bootstrap", "remove", &entry(1), "--json"]).succeeded().json();
        assert_eq!((&removed["entries"], &removed["dropped"]), (&json!([entry(1)]), &dropped));
        sandbox.run(&["bootstrap", "remove", &entry(1)]).failed(1, "was not added by hand");
        let id = entry(2)["pqvpn://".len()..].split('@').next().unwrap().to_owned();
        let text = sandbox.run(&["bootstrap", "remove", &id]).succeeded().stdout;
        assert!(text.contains(&format!("removed {}", entry(2))), "{text}");
        sandbox.run(&["bootstrap", "remove", "seed.example"]).failed(2, "expected");
    }
}
