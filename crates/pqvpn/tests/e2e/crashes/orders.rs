// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders that write, and what may be there after one that was cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{networks, rig::Node};

/// Sorts of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Create,
    Leave,
    Join,
    Invite,
    Rotate,
    Set,
    Door,
}

const KINDS: [Kind; 7] = [Kind::Create, Kind::Leave, Kind::Join, Kind::Invite, Kind::Rotate, Kind::Set, Kind::Door];
/// Networks that the node has at most at a time.
const MANY: usize = 4;
/// Longer than any order takes that is carried out at all.
const PATIENCE: Duration = Duration::from_secs(3);
/// The network of the friend.
const FRIENDS: &str = "friends";

/// What is asked of the daemon: resource and body.
pub(super) type Request = (&'static str, Value);

#[derive(Debug)]
pub(super) struct Order {
    pub(super) kind: Kind,
    /// Network, or value.
    pub(super) what: String,
    pub(super) request: Request,
}

/// What of the node lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    /// With their identities.
    pub(super) networks: BTreeMap<String, String>,
    invites: usize,
    limit: String,
    doors: BTreeSet<String>,
}

/// Sends a request to a daemon; its answer, if it came whole and says that it was done.
pub(super) fn send(socket: &Path, (resource, body): &Request) -> Option<Value> {
    let body = body.to_string();
    let head = format!(
        "POST /v1{resource} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).ok()?;
    // A disk that takes nothing is tried again, and nothing is said meanwhile.
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = String::new();
    let _cut_off = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
}

/// What the node has, as it says itself.
pub(super) fn look(a: &Node) -> Seen {
    let list = networks::json(a, &["net", "list"]);
    let named = list["networks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let networks: BTreeMap<String, String> =
        named.map(|network| (text(&network["name"]), text(&network["id"]))).collect();
    let mut invites = 0;
    for name in networks.keys().filter(|name| *name != FRIENDS) {
        let kept = send(&a.file("sock"), &("/invites/list", json!({"network": name}))).expect("a list of invites");
        invites += kept["invites"].as_array().unwrap().len();
    }
    let doors = fs::read_to_string(a.file("state/bootstrap/nodes")).unwrap_or_default();
    let doors = doors.lines().filter_map(|line| Some(line.split_once("//")?.1.get(..64)?.to_owned())).collect();
    let config = fs::read_to_string(a.file("config.toml")).unwrap();
    let limit = config.lines().find_map(|line| line.strip_prefix("limit = ")).unwrap_or_default().to_owned();
    Seen { id: text(&networks::json(a, &["id"])["peer_id"]), networks, invites, limit, doors }
}

impl Order {
    /// One of a sort; where there is nothing to leave, something is made.
    pub(super) fn of(kind: Kind, number: u64, seen: &Seen) -> Self {
        let at = KINDS.iter().position(|one| *one == kind).expect("all are listed");
        Self::choose(at, number, seen, String::new)
    }

    /// One of those that make sense now.
    pub(super) fn choose(dice: usize, number: u64, seen: &Seen, code: impl Fn() -> String) -> Self {
        let own: Vec<&String> = seen.networks.keys().filter(|name| *name != FRIENDS).collect();
        let any: Vec<&String> = seen.networks.keys().collect();
        let kind = match KINDS[dice % KINDS.len()] {
            Kind::Create if own.len() >= MANY => Kind::Leave,
            Kind::Leave | Kind::Invite if own.is_empty() => Kind::Create,
            Kind::Join if seen.networks.contains_key(FRIENDS) => Kind::Leave,
            Kind::Create => Kind::Create,
            Kind::Leave => Kind::Leave,
            Kind::Invite => Kind::Invite,
            Kind::Join => Kind::Join,
            kind @ (Kind::Rotate | Kind::Set | Kind::Door) => kind,
        };
        let dice = dice / KINDS.len();
        let what = match kind {
            Kind::Create => format!("n{number}"),
            Kind::Join => FRIENDS.to_owned(),
            Kind::Leave => any[dice % any.len()].clone(),
            Kind::Invite => own[dice % own.len()].clone(),
            Kind::Set => format!("{}mbit", 1 + number % 900),
            Kind::Door => format!("{:064x}", u128::from(number) + 1),
            Kind::Rotate => String::new(),
        };
        let request = request(kind, &what, code);
        Self { kind, what, request }
    }

    /// Whether what is there now may be there: after an order that was answered the new, else the old or the new.
    pub(super) fn judge(&self, before: &Seen, now: &Seen, answer: Option<&Value>) -> Result<(), String> {
        let mut new = before.clone();
        match self.kind {
            Kind::Create | Kind::Join => {
                // Whose identity nobody could know before.
                let id = now.networks.get(&self.what).cloned().unwrap_or_default();
                new.networks.insert(self.what.clone(), id);
            }
            Kind::Leave => {
                new.networks.remove(&self.what);
                new.invites = now.invites.min(before.invites);
            }
            Kind::Invite => new.invites += 1,
            Kind::Rotate => {
                let told = answer.and_then(|answer| answer["peer_id"].as_str());
                // Codes of the key before work no longer.
                new.invites = now.invites.min(before.invites);
                new.id = told.map_or_else(|| now.id.clone(), str::to_owned);
                if now.id == before.id && answer.is_some() {
                    return Err("the new key was in force".to_owned());
                }
            }
            Kind::Set => new.limit = format!("\"{}\"", self.what),
            Kind::Door => drop(new.doors.insert(self.what.clone())),
        }
        match (*now == new, now == before, answer) {
            (true, ..) | (_, true, None) => Ok(()),
            (_, true, Some(_)) => Err("what was answered is lost".to_owned()),
            (false, false, _) => Err(format!("it is neither the old nor {new:?}")),
        }
    }
}

fn request(kind: Kind, what: &str, code: impl Fn() -> String) -> Request {
    match kind {
        Kind::Create => ("/networks", json!({"name": what, "approval": false, "quorum": 1})),
        Kind::Leave => ("/networks/leave", json!({"network": what})),
        Kind::Join => ("/join", json!({"code": code(), "timeout_ms": 10_000})),
        Kind::Invite => ("/invites", json!({"network": what, "tags": []})),
        Kind::Rotate => ("/keys/rotate", json!({})),
        Kind::Set => ("/set", json!({"key": "relay.limit", "value": what})),
        Kind::Door => {
            ("/bootstrap", json!({"entries": [format!("pqvpn://{what}@198.51.100.1:41641")], "trust": false}))
        }
    }
}

/// How long each sort of order takes when nobody interferes; each is given once.
pub(super) fn usual_times(a: &Node, friend: &Node, seen: &mut Seen) -> BTreeMap<Kind, Duration> {
    let mut times = BTreeMap::new();
    for kind in [Kind::Create, Kind::Invite, Kind::Rotate, Kind::Set, Kind::Door, Kind::Join, Kind::Leave] {
        let what = match kind {
            Kind::Create | Kind::Invite | Kind::Leave => "first".to_owned(),
            Kind::Door => "ff".repeat(32),
            Kind::Set => "901mbit".to_owned(),
            Kind::Rotate | Kind::Join => String::new(),
        };
        let request = request(kind, &what, || networks::invite(friend, &[]));
        let began = Instant::now();
        let answer = send(&a.file("sock"), &request);
        times.insert(kind, began.elapsed());
        assert!(answer.is_some(), "{kind:?} {request:?}\n{}", crate::rig::tail(&a.daemon().stderr()));
    }
    eprintln!("usual times: {times:?}");
    *seen = look(a);
    times
}
