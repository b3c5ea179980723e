// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the colluders say: each strategy does its harm, and nothing it could not do in the world outside.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::Now;
use pqvpn_sim::{
    adversary::{Case, Coven, Reaction, STRATEGIES, Strategy, strategy},
    crypto::{KeyRing, Registry, unsigned},
    seed::Seed,
    world::population::Population,
};
use pqvpn_wire::dht::{Contact, NetworkId, Payload, Point, RecordDraft, Request, Response, Token};

const NOW: Now = Now { mono: Duration::from_secs(60), unix_ms: 1_795_132_860_000 };

struct Scene {
    registry: Arc<Registry>,
    coven: Coven,
    members: Vec<Arc<Contact>>,
    honest: Vec<Arc<Contact>>,
}

fn scene() -> Scene {
    let mut population = Population::new(Seed(1).rng("population", 0), 512);
    let mut many = |count: usize| -> Vec<_> { (0..count).map(|_| population.newcomer(NOW.unix_ms)).collect() };
    let (members, honest) = (many(30), many(70));
    let registry = Arc::new(Registry::new([3; 32]));
    let ring = KeyRing::new(Arc::clone(&registry), members.iter().map(|member| *member.peer()));
    let mut coven = Coven::new(members.clone(), honest.clone(), ring);
    coven.aim(SocketAddr::from(([99, 0, 0, 1], 1)));
    Scene { registry, coven, members, honest }
}

impl Scene {
    /// What the first colluder answers the first honest node, and after how long; `None` is silence.
    fn ask(&self, strategy: &mut dyn Strategy, request: &Request) -> Option<(Response, Duration)> {
        let (me, asker) = (&self.members[0], &self.honest[0]);
        let observed = asker.addresses()[0];
        let case = Case { now: NOW, me, from: asker.peer(), observed, request };
        let contacts = || Response::Nodes { contacts: self.honest[..20].to_vec(), token: Some(Token([1; 16])) };
        let mut honest =
            |request: Request| if request == Request::Ping { Response::Pong { observed } } else { contacts() };
        match strategy.answer(&case, &self.coven, &mut honest) {
            Reaction::Silence => None,
            Reaction::Say(response) => Some((response, Duration::ZERO)),
            Reaction::Later(response, delay) => Some((response, delay)),
        }
    }

    fn is_member(&self, contact: &Contact) -> bool {
        self.members.iter().any(|member| member.peer() == contact.peer())
    }
}

fn contacts(answer: Option<(Response, Duration)>) -> Vec<Arc<Contact>> {
    match answer {
        Some((Response::Nodes { contacts, .. }, _)) => contacts,
        other => panic!("no contacts: {other:?}"),
    }
}

fn draft(owner: &PeerId, seq: u64) -> RecordDraft {
    RecordDraft {
        network: NetworkId::OPEN,
        owner: *owner,
        week: 0,
        seq,
        not_before_ms: NOW.unix_ms,
        not_after_ms: NOW.unix_ms + 3_600_000,
        payload: Payload::Value { name: "n".to_owned(), value: vec![1] },
        heartbeat_anchor: [0; 32],
    }
}

#[test]
fn every_name_has_its_strategy() {
    for name in STRATEGIES {
        assert_eq!(strategy(name).unwrap().name(), name);
    }
    assert!(strategy("kindness").is_none() && strategy("poison-").is_none());
}

#[test]
fn nobody_signs_for_others() {
    let scene = scene();
    let (mine, theirs) = (scene.members[0].peer(), scene.honest[0].peer());
    let ring = scene.coven.ring().unwrap();
    assert!(ring.sign(draft(mine, 1)).unwrap().verify(&*scene.registry));
    assert!(ring.sign(draft(theirs, 1)).is_none());
    assert!(!unsigned(draft(theirs, 1), Vec::new()).verify(&*scene.registry));
    let borrowed = ring.sign(draft(mine, 1)).unwrap().signature().to_vec();
    assert!(!unsigned(draft(theirs, 1), borrowed).verify(&*scene.registry));
}

#[test]
fn hijackers_name_the_nearest_of_their_own() {
    let scene = scene();
    let target = Point::from_bytes([0xa5; 32]);
    for request in [Request::FindNode { target }, Request::FindValue { key: target, want_seq: 0 }] {
        let named = contacts(scene.ask(&mut *strategy("hijack").unwrap(), &request));
        assert_eq!(named.len(), 20);
        assert!(named.iter().all(|contact| scene.is_member(contact)));
        let mut all = scene.members.clone();
        all.sort_by_key(|member| member.node_id().distance(&target));
        assert_eq!(named, all[..20]);
    }
}

#[test]
fn slanderers_name_honest_nodes_where_they_are_not() {
    let scene = scene();
    let request = Request::FindNode { target: *scene.honest[5].node_id() };
    let named = contacts(scene.ask(&mut *strategy("slander").unwrap(), &request));
    let right = scene.honest.iter().chain(&scene.members);
    assert!(right.clone().any(|node| node.peer() == named[0].peer()));
    assert!(right.clone().all(|node| named.iter().all(|told| told.addresses() != node.addresses())));
    assert_eq!(named[0].node_id(), scene.honest[5].node_id(), "the position is right, only nobody is there");
}

#[test]
fn reflectors_aim_at_the_victim_only() {
    let scene = scene();
    let named = contacts(scene.ask(&mut *strategy("reflector").unwrap(), &Request::Exchange));
    assert!(named.iter().all(|contact| contact.addresses() == scene.coven.victims()));
    let mut reflector = strategy("reflector").unwrap();
    assert!(reflector.acts() && !reflector.act(NOW, &scene.coven, &mut Seed(1).rng("act", 0)).is_empty());
}

#[test]
fn droppers_and_dawdlers_hold_values_back() {
    let scene = scene();
    let mut silent = 0;
    for byte in 0..20 {
        let request = Request::FindValue { key: Point::from_bytes([byte; 32]), want_seq: 0 };
        silent += u32::from(scene.ask(&mut *strategy("drop").unwrap(), &request).is_none());
    }
    assert_eq!(silent, 10);
    let (_, delay) = scene.ask(&mut *strategy("slow").unwrap(), &Request::Ping).unwrap();
    assert!(delay > Duration::from_secs(1) && delay < Duration::from_secs(2));
}

#[test]
fn flooders_ask_one_victim_all_the_time() {
    let scene = scene();
    let deeds = strategy("flood").unwrap().act(NOW, &scene.coven, &mut Seed(1).rng("act", 0));
    assert_eq!(deeds.len(), 30 * 50);
    assert!(deeds.iter().all(|deed| deed.to == scene.honest[0]));
}

#[test]
fn poisoners_answer_with_what_should_be_refused() {
    let mut scene = scene();
    let owner = *scene.honest[1].peer();
    let keys = KeyRing::new(Arc::clone(&scene.registry), [owner]);
    let (old, new) = (keys.sign(draft(&owner, 1)).unwrap(), keys.sign(draft(&owner, 2)).unwrap());
    let key = *new.key();
    scene.coven.learn(&Arc::new(old));
    scene.coven.learn(&Arc::new(new));
    let request = Request::FindValue { key, want_seq: 0 };
    for name in ["unsigned", "forged", "expired", "equivocating", "stale"] {
        let answer = scene.ask(&mut *strategy(&format!("poison-{name}")).unwrap(), &request);
        let Some((Response::Value { record, .. }, _)) = answer else { panic!("{name}: no value") };
        assert_eq!(record.key(), &key);
        assert_eq!(record.verify(&*scene.registry), name == "stale", "{name}");
        assert_eq!(record.seq() == 1, name == "stale", "{name}");
    }
    let unknown = Request::FindValue { key: Point::from_bytes([1; 32]), want_seq: 0 };
    contacts(scene.ask(&mut *strategy("poison-stale").unwrap(), &unknown));
}
