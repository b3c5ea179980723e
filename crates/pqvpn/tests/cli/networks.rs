// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs of networks, against the real control server in front of a node this test plays, and without a daemon.

mod played;

use std::{
    io::Write,
    process::Stdio,
    sync::{Arc, Mutex},
};

use pqvpn_api::{
    model::Started,
    server::{Access, ControlSocket, Service, serve},
};
use pqvpn_node::{
    dht::{DhtError, LookupTarget, RecordRef},
    handle::{Command, DhtCommand, NodeError, NodeHandle, PeerRef},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::mpsc};

use self::played::{EXPIRED, KNOWN, MEMBER, NAS, OPEN, QUEUE, SILENT, TAKEN, code, dns, identity, play};
use crate::sandbox::{Run, Sandbox};

struct Fixture {
    sandbox: Sandbox,
    /// Every order of the node, as the node saw it.
    orders: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Fixture {
    fn start() -> Self {
        let (sandbox, runtime) = Sandbox::serving();
        let entered = runtime.enter();
        let (tx, mut rx) = mpsc::channel(4);
        let orders = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&orders);
        tokio::spawn(async move {
            while let Some(command) = rx.recv().await {
                #[expect(clippy::wildcard_enum_match_arm, reason = "no other command belongs to networks")]
                match command {
                    Command::Network(command) => play(command, &seen),
                    Command::Dns(reply) => drop(reply.send(dns())),
                    Command::Dht(DhtCommand::Get(what, reply)) => {
                        seen.lock().unwrap().push(format!("{what:?}"));
                        drop(reply.send(Err(nobody_but_by_id(&what))));
                    }
                    Command::Dht(DhtCommand::Lookup(LookupTarget::Peer(peer), reply)) => {
                        let what = RecordRef::Peer(peer);
                        seen.lock().unwrap().push(format!("{what:?}"));
                        drop(reply.send(Err(nobody_but_by_id(&what))));
                    }
                    Command::Up(reply) => drop(reply.send(Ok::<(), NodeError>(()))),
                    other => panic!("{other:?}"),
                }
            }
        });
        let access = Access::of_this_process();
        let socket = ControlSocket::bind(&sandbox.socket(), &access).unwrap();
        let started = Started {
            schema: 1,
            pid: 7,
            state_dir: sandbox.path("state"),
            ephemeral: false,
            config: Some(sandbox.path("daemon.toml")),
            settings: String::new(),
        };
        let service = Service::new(NodeHandle::new(tx), identity()).started(started);
        tokio::spawn(serve(socket, access, service, std::future::pending()));
        drop(entered);
        Self { sandbox, orders, _runtime: runtime }
    }

    fn run(&self, line: &[&str]) -> Run {
        self.sandbox.run(line)
    }

    fn json(&self, line: &[&str]) -> Value {
        let json = self.run(&[line, &["--json"]].concat()).succeeded().json();
        assert_eq!(json["schema"], 1, "{line:?}: {json}");
        json
    }

    fn text(&self, line: &[&str]) -> String {
        self.run(line).succeeded().stdout
    }

    /// The newest order.
    fn order(&self) -> String {
        self.orders.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// Of a node that has no peers: whoever is asked for by PeerID could be found by others.
fn nobody_but_by_id(what: &RecordRef) -> NodeError {
    let (RecordRef::Peer(PeerRef(peer)) | RecordRef::Value { owner: Some(PeerRef(peer)), .. }) = what else {
        panic!("{what:?}")
    };
    if peer.len() == 64 { DhtError::Alone.into() } else { NodeError::UnknownPeer(peer.clone()) }
}

#[test]
fn records_of_members_are_found_by_their_names() {
    let fixture = Fixture::start();
    let nas = NAS.to_string();
    for (line, id) in [
        (&["get", "nas"][..], &nas),
        (&["get", "NAS.home"], &nas),
        (&["get", "nas/motd"], &nas),
        (&["lookup", "nas.home"], &nas),
        (&["get", "fd00::2"], &nas),
        (&["get", "10.77.9.2/motd"], &nas),
        (&["lookup", "10.77.9.2"], &nas),
        // Its own records a node finds as well.
        (&["get", "laptop"], &"07".repeat(32)),
    ] {
        fixture.run(&[&["dht"], line].concat()).failed(1, "no other node");
        assert!(fixture.order().contains(id.as_str()), "{line:?}: {}", fixture.order());
    }
    fixture.run(&["dht", "get", "vps"]).failed(1, "no peer is called \"vps\"");
    fixture.run(&["dht", "lookup", "nas.work"]).failed(1, "no peer is called");
}

#[test]
fn a_mode_that_was_set_is_not_advised_again() {
    let fixture = Fixture::start();
    let advice = "`pqvpn set dns.mode resolv-conf`";
    let file = fixture.sandbox.write("daemon.toml", "[dns]\nmode = \"auto\"\n");
    assert!(fixture.text(&["dns", "status"]).contains(advice));
    assert_eq!(fixture.json(&["dns", "status"])["mode_next"], Value::Null);
    std::fs::write(&file, "[dns]\nmode = \"resolv-conf\"\n").unwrap();
    let text = fixture.text(&["dns", "status"]);
    let next = format!("# {} says dns.mode \"resolv-conf\": it holds when the daemon is started again", file.display());
    assert!(text.contains(&next) && text.contains("nothing on this host asks here\n"), "{text}");
    assert_eq!(fixture.json(&["dns", "status"])["mode_next"], "resolv-conf");
    std::fs::write(&file, "[dns]\nmode = \"off\"\n").unwrap();
    let text = fixture.text(&["dns", "status"]);
    assert!(text.contains("nothing on this host asks here\n"), "it is to be off: {text}");
}

#[test]
fn a_name_that_is_not_given_to_a_member_is_said_to_be_none() {
    let fixture = Fixture::start();
    let run = fixture.run(&["join", &code(MEMBER)]).failed(1, "already, under the name");
    assert!(!run.stderr.contains("--name"), "nobody asked for another: {}", run.stderr);
    let run = fixture.run(&["join", &code(MEMBER), "--name", "desk"]).failed(1, "under the name \"laptop\"");
    assert!(run.stderr.contains("to change the name: `pqvpn net leave home`, then join"), "{}", run.stderr);
    let run = fixture.run(&["join", &code(MEMBER), "--name", "laptop"]).failed(1, "under the name \"laptop\"");
    assert!(!run.stderr.contains("to change the name"), "it has that name: {}", run.stderr);
    let run = fixture.run(&["join", &code(KNOWN), "--name", "desk"]).succeeded();
    assert!(run.stderr.contains("this node stays laptop: home has it under that name"), "{}", run.stderr);
    assert_eq!(fixture.run(&["join", &code(OPEN), "--name", "desk"]).succeeded().stderr, "");
}

#[test]
fn what_is_said_once_is_said_to_whoever_wants_results_only_and_never_lost_in_silence() {
    let fixture = Fixture::start();
    assert_eq!(fixture.text(&["net", "create", "home", "-q"]).trim(), "5e".repeat(32));
    for line in [&["net", "create", "home"][..], &["net", "create", "home", "--json"], &["--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = fixture.sandbox.command(line).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}: {said}");
        assert!(said.contains("its answer could not be written"), "{line:?}: {said}");
    }
}

#[test]
fn a_new_network_says_what_comes_next() {
    let fixture = Fixture::start();
    let text = fixture.text(&["net", "create", "home", "--as", "desk", "--pool", "10.9.0.0/16", "--approval"]);
    assert!(text.contains("network home: you are laptop  fd00::1  10.77.0.1\n"), "{text}");
    assert!(text.contains(&"5e".repeat(32)) && text.contains("shown once"), "{text}");
    assert_eq!(text.lines().last(), Some("Invite somebody: pqvpn invite"));
    let order = fixture.order();
    assert!(order.contains("desk") && order.contains("10.9.0.0/16") && order.contains("approval: true"), "{order}");
    let text = fixture.text(&["net", "create", "work"]);
    assert_eq!(text.lines().last(), Some("Invite somebody: pqvpn invite -n work"));
    let made = fixture.json(&["net", "create", "home"]);
    assert_eq!((&made["network"]["own_name"], &made["started_pid"]), (&"laptop".into(), &Value::Null));
    fixture.run(&["net", "create", "home", "--pool", "10.9/16"]).failed(2, "10.9/16");
    let error = fixture.run(&["net", "create", "home", "--quorum", "17"]).failed(2, "17");
    assert!(error.stderr.contains("`pqvpn net create --help`"), "{}", error.stderr);
    // A name that cannot be one reaches no daemon and starts none.
    let sandbox = Sandbox::new();
    for line in [&["net", "create", "Höme"][..], &["net", "create", "home", "--as", "a b"]] {
        sandbox.run(line).failed(2, "cannot be a name");
    }
    sandbox.run(&["join", &code(OPEN), "--name", "a.b"]).failed(2, "cannot be a name");
    assert!(!sandbox.path("state").exists() && !sandbox.socket().exists(), "no daemon was started");
}

#[test]
fn networks_are_shown_switched_and_left() {
    let fixture = Fixture::start();
    let text = fixture.text(&["net", "list"]);
    assert!(text.starts_with("NETWORK") && text.contains("laptop (admin)"), "{text}");
    assert!(text.contains("# home: 1 waiting to be let in: pqvpn approve -n home"), "{text}");
    assert!(text.contains("# the name is told once") && !text.contains("home: the name"), "{text}");
    assert_eq!(fixture.json(&["net", "list"])["networks"][0]["members"], 7);
    assert!(fixture.text(&["net", "down"]).contains("`pqvpn net up home` brings it back"));
    assert_eq!(fixture.json(&["net", "up", "home"])["network"]["state"], "up");
    // A script has to say that it means it; nothing is asked of the daemon before.
    let error = fixture.run(&["net", "leave", "home"]).failed(2, "no terminal");
    assert!(error.stderr.contains("--yes"), "{}", error.stderr);
    fixture.run(&["net", "leave", "home", "--json"]).failed(2, "no terminal");
    assert!(fixture.text(&["net", "leave", "home", "--yes"]).contains("invited anew"));
    fixture.run(&["net", "leave", "work", "--yes"]).failed(1, "no network is called \"work\"");
}

#[test]
fn an_invite_is_a_code_and_how_to_use_it() {
    let fixture = Fixture::start();
    let text = fixture.text(&["invite"]);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(code(OPEN).as_str()));
    assert!(text.contains("On the other machine: pqvpn join <code>"), "{text}");
    assert!(text.contains("one may come into home, until 2026-11-22 00:50 UTC"), "{text}");
    assert_eq!(fixture.text(&["invite", "--quiet"]), format!("{}\n", code(OPEN)));
    let asked = ["invite", "-n", "home", "--expires", "2h", "--uses", "3", "--tag", "a", "--tag", "b"];
    let asked = [&asked[..], &["--ephemeral", "5m", "--member-expires", "7d", "--pre-approved"]].concat();
    assert_eq!(fixture.json(&asked)["max_uses"], 3);
    let order = fixture.order();
    for word in
        ["Some(\"home\")", "expires: 7200s", "[\"a\", \"b\"]", "Some(300s)", "Some(604800s)", "preapproved: true"]
    {
        assert!(order.contains(word), "{word} in {order}");
    }
    fixture.run(&["invite", "--expires", "soon"]).failed(2, "like `30m`");
}

#[test]
fn a_qr_code_is_drawn_above_the_text() {
    let fixture = Fixture::start();
    let text = fixture.text(&["invite", "--qr"]);
    let drawn = text.lines().take_while(|line| line.chars().all(|c| " ▀▄█".contains(c))).count();
    assert!(drawn > 15, "{text}");
    assert_eq!(text.lines().nth(drawn), Some(code(OPEN).as_str()), "{text}");
    assert_eq!(fixture.json(&["invite", "--qr"])["code"], code(OPEN));
}

#[test]
fn invites_are_listed_and_cancelled() {
    let fixture = Fixture::start();
    let text = fixture.text(&["invite", "list"]);
    assert!(text.contains("1a1a1a1a1a1a1a1a  home     open   0/1"), "{text}");
    assert!(!text.contains("pqvpn1-"));
    assert!(fixture.text(&["invite", "cancel", "1a1a"]).contains("cancel 1a1a; 4 members have it already"));
}

#[test]
fn a_code_is_taken_from_the_line_or_from_standard_input() {
    let fixture = Fixture::start();
    let text = fixture.text(&["join", &code(OPEN), "--name", "desk", "--timeout", "9"]);
    assert!(text.contains("joined home as desk  10.77.9.2\n3 members with this one"), "{text}");
    assert!(text.contains("Say hello: pqvpn ping"), "{text}");
    assert_eq!(fixture.order(), "join Some(\"desk\") 9s");
    // As a mail program may have broken it.
    let whole = code(OPEN);
    let (head, tail) = whole.split_at(40);
    let words = fixture.json(&["join", head, &tail.to_uppercase()]);
    assert_eq!((&words["network"], &words["members"]), (&"home".into(), &3.into()));

    let mut command = fixture.sandbox.command(&["join", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("  {head}\n{tail}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let joined: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&joined["name"], &joined["started_pid"]), (&"nas".into(), &Value::Null));
    fixture.run(&["join", "-"]).failed(2, "empty");
    fixture.run(&["join", "-", "--passphrase-file", "-"]).failed(2, "both");
}

#[test]
fn whoever_waits_for_an_admin_is_told_so() {
    let text = Fixture::start().text(&["join", &code(QUEUE)]);
    assert!(text.contains("On the machine of an admin: pqvpn approve nas"), "{text}");
}

#[test]
fn a_bad_code_is_one_clear_error() {
    let fixture = Fixture::start();
    fixture.run(&["join", &code(EXPIRED)]).failed(4, "the invite to home expired 25 h ago");
    fixture.run(&["join", &code(TAKEN)]).failed(1, "nas-2");
    fixture.run(&["join", &code(SILENT), "--timeout", "3"]).failed(1, "within 3 s: no route");
    let error = fixture.run(&["join", &code(EXPIRED), "--json"]);
    assert_eq!((error.code, &error.json()["error"]["code"]), (4, &"invite-expired".into()));
}

#[test]
fn a_code_that_cannot_be_one_reaches_no_daemon_and_starts_none() {
    let sandbox = Sandbox::new();
    let good = code(OPEN);
    let other = if good.ends_with('a') { "b" } else { "a" };
    let typo = format!("{}{other}", &good[..good.len() - 1]);
    let run = sandbox.run(&["join", &typo]).failed(2, "typing error");
    assert!(run.stderr.contains(&format!("did you mean {good}")), "{}", run.stderr);
    sandbox.run(&["join", &good[..good.len() - 9]]).failed(2, "not complete");
    sandbox.run(&["join", "hello"]).failed(2, "begins with");
    sandbox.run(&["join", &good.replacen('1', "9", 1)]).failed(2, "version 9");
    let error = sandbox.run(&["join", "hello", "--json"]);
    assert_eq!((error.code, &error.json()["error"]["code"]), (2, &"bad-code".into()));
    assert!(!sandbox.path("state").exists() && !sandbox.socket().exists(), "no daemon was started");
}

#[test]
fn who_waits_is_shown_let_in_and_turned_away() {
    let fixture = Fixture::start();
    for verb in ["approve", "deny"] {
        let text = fixture.text(&[verb]);
        assert!(text.contains(&NAS.to_string()) && text.contains("n?[2Jas"), "{text}");
        assert_eq!(fixture.json(&[verb])["requests"][0]["network"], "home");
    }
    assert!(fixture.text(&["approve", "nas"]).contains("nas is a member of home now"));
    let nobody = fixture.run(&["approve", "nobody"]).failed(1, "nobody called \"nobody\" waits to be let in");
    assert!(nobody.stderr.contains("`pqvpn approve` shows who waits"), "{}", nobody.stderr);
    assert!(fixture.text(&["deny", "nas", "-n", "home"]).contains("`pqvpn invite cancel 1a1a1a1a`"));
}

#[test]
fn members_are_shown_and_thrown_out() {
    let fixture = Fixture::start();
    let text = fixture.text(&["members"]);
    let nas = text.lines().find(|line| line.starts_with("nas")).unwrap();
    assert!(nas.contains("10.77.9.2") && nas.contains("online") && nas.contains("ephemeral"), "{text}");
    assert!(text.contains("this node"), "{text}");
    assert_eq!(fixture.json(&["members", "-n", "home"])["members"][1]["peer_id"], NAS.to_string());
    let text = fixture.text(&["revoke", "nas", "--reason", "lost in a train"]);
    assert!(text.contains("nas is out of home: cut off here and at 4 of 5 members online"), "{text}");
    assert_eq!(fixture.order(), "revoke nas lost in a train");
    let text = fixture.text(&["revoke", "peer"]);
    assert!(text.contains("peer is still in home: it is an admin") && text.contains("1 of 2 signatures"), "{text}");
    assert!(text.contains("pqvpn lock sign cdcdcdcdcdcd"), "{text}");
    fixture.run(&["revoke", "nobody"]).failed(1, "no member called \"nobody\"");
    fixture.run(&["revoke", "boss"]).failed(4, "no admin of home");
}

#[test]
fn the_lock_shows_who_signs_and_what_waits() {
    let fixture = Fixture::start();
    let text = fixture.text(&["lock", "status"]);
    assert!(
        text.contains("admins, of whom 2 must sign") && text.contains("cdcdcdcdcdcd  1 of 2 by laptop  add admin vps"),
        "{text}"
    );
    assert_eq!(fixture.json(&["lock", "status"])["proposals"][0]["need"], 2);
    let text = fixture.text(&["lock", "log", "--limit", "5"]);
    assert!(text.contains("2026-11-22 00:50 UTC") && text.contains("add-member"), "{text}");
    let text = fixture.text(&["lock", "add", "vps"]);
    assert!(text.contains("add vps has 1 of 2 signatures") && text.contains("pqvpn lock sign cdcdcdcdcdcd"), "{text}");
    assert!(text.contains("If no other admin is left"), "{text}");
    assert!(fixture.text(&["lock", "sign", "cdcd"]).contains("sign cdcd; 4 members have it already"));
    fixture.run(&["lock", "remove", "vps"]).failed(4, "lost its quorum");
}

#[test]
fn a_coup_is_answered_beside_it() {
    let fixture = Fixture::start();
    let text = fixture.text(&["lock", "status"]);
    assert!(text.contains("against what is in force, beside it") && text.contains("efefefefefef  1 of 2 by laptop"));
    let text = fixture.text(&["lock", "contest", "abcd", "ef01", "--remove", "nas", "-n", "home"]);
    assert!(text.contains("pqvpn lock sign cdcdcdcdcdcd"), "{text}");
    assert_eq!(fixture.order(), "contest [\"abcd\", \"ef01\"] Some(\"nas\")");
    assert!(fixture.text(&["lock", "contest", "lost"]).contains("what others signed counts more"));
    assert_eq!(fixture.json(&["lock", "contest", "abcd"])["in_force"], json!(false));
    fixture.run(&["lock", "contest"]).failed(2, "STATEMENT");
}

#[test]
fn a_network_ends_only_when_it_is_really_meant() {
    let fixture = Fixture::start();
    fixture.run(&["lock", "disable", "5e5e"]).failed(4, "nobody confirmed");
    assert_eq!(fixture.json(&["lock", "disable", "5e5e", "--accept-risk"])["in_force"], json!(true));
}

#[test]
fn names_are_shown_and_looked_up() {
    let fixture = Fixture::start();
    let text = fixture.text(&["dns", "status"]);
    assert!(text.contains("nas.home.pqvpn  fd00::2  10.77.9.2"), "{text}");
    assert!(text.contains("nothing on this host asks here; `pqvpn set dns.mode resolv-conf`"), "{text}");
    assert!(
        text.contains("port 53 at fd00::1: port 53 is in use") && text.contains("several networks are called work")
    );
    let status = fixture.json(&["dns", "status"]);
    assert_eq!(
        (&status["mode"], &status["host"], &status["zone"]),
        (&"auto".into(), &"untouched".into(), &"pqvpn".into())
    );
    for name in ["nas.home", "NAS.home.pqvpn", "nas.home.pqvpn."] {
        assert_eq!(fixture.text(&["dns", "query", name]), "fd00::2\n10.77.9.2\n");
    }
    assert_eq!(fixture.json(&["dns", "query", "nas.home"])["addresses"], json!(["fd00::2", "10.77.9.2"]));
    fixture.run(&["dns", "query", "vps.home"]).failed(1, "no member has the name vps.home.pqvpn");
}
