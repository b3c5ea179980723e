// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lie, one rule: each of these was seen to succeed with its rule taken out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Distance, Equivocation, Fact, Point, Record, Refusal, Request, Response};

use super::{
    solo::{Answer, Solo},
    world::{World, address, sign},
};
use crate::{Output, address::Subnet, admission, counters::Attack};

/// Makes every node but the reader and the owner answer a search with this record.
fn everybody_serves(world: &mut World, reader: usize, forged: &Arc<Record>) {
    for index in (0..world.nodes.len()).filter(|index| *index != reader) {
        let forged = Arc::clone(forged);
        world.liars.insert(
            index,
            Box::new(move |_, request, honest| {
                if !matches!(request, Request::FindValue { .. }) {
                    return honest;
                }
                Response::Value { record: Arc::clone(&forged), heartbeat: None, contacts: Vec::new(), token: None }
            }),
        );
    }
}

#[test]
fn a_record_that_its_owner_did_not_sign_is_never_accepted() {
    let mut world = World::joined(11, 24);
    let (record, _) = world.record(5, 9);
    let forged = Record::assemble(record.draft().clone(), record.owner_key().to_vec(), vec![0; 32]);
    everybody_serves(&mut world, 0, &Arc::new(forged));
    let got = world.get(0, *record.key());
    assert!(got.outcome.record.is_none());
    assert!(world.nodes[0].counters().get(Attack::PoisonedRecord) > 0);
}

#[test]
fn somebody_elses_valid_record_is_no_answer() {
    let mut world = World::joined(12, 24);
    let (other, _) = world.record(6, 1);
    let (asked, _) = world.record(5, 1);
    everybody_serves(&mut world, 0, &other);
    assert!(world.get(0, *asked.key()).outcome.record.is_none());
    assert!(world.nodes[0].counters().get(Attack::KeyMismatch) > 0);
}

#[test]
fn an_old_record_without_a_sign_of_life_is_not_accepted() {
    let mut world = World::joined(13, 24);
    let (old, _) = world.record(5, 1);
    everybody_serves(&mut world, 0, &old);
    assert!(world.get(0, *old.key()).outcome.record.is_some(), "as long as it is fresh");
    world.run(Duration::from_secs(6 * 3600));
    assert!(world.get(0, *old.key()).outcome.record.is_none(), "its owner beats for it no more");
    assert!(world.nodes[0].counters().get(Attack::StaleRecord) > 0);
}

#[test]
fn two_records_with_one_seq_convict_their_owner_everywhere() {
    let mut world = World::joined(14, 24);
    let (one, put) = world.publish(5, 7);
    assert!(put.stored > 10);
    let mut draft = one.draft().clone();
    draft.not_after_ms -= 1;
    let two = Arc::new(sign(draft));
    let id = world.nodes[5].put(world.now, two).expect("room");
    world.finish(5, id);
    world.run(Duration::from_secs(30));
    let owner = world.peer(5);
    let convinced = world.nodes.iter().filter(|node| node.facts().revoked(&owner)).count();
    assert!(convinced >= 20, "{convinced} of 24 know");
    assert!(world.get(0, *one.key()).outcome.record.is_none());
}

#[test]
fn a_position_without_proof_of_work_decides_nothing() {
    let mut world = World::joined(15, 24);
    world.proofs_hold = false;
    let intruder = world.add();
    world.introduce(intruder, 0);
    world.run(Duration::from_secs(30));
    let known = (0..24).filter(|index| world.nodes[*index].table().get(&world.peer(intruder)).is_some()).count();
    assert_eq!(known, 0);
    assert!(world.nodes[0].counters().get(Attack::AdmissionFalse) > 0);
}

#[test]
fn a_stranger_names_a_reflectors_victim_in_vain() {
    let mut world = World::joined(16, 24);
    let node = 0;
    let peer = PeerId::from_bytes([7; 32]);
    let at = "127.0.0.1:53".parse().expect("an address");
    let bait = Arc::new(Contact::new(peer, Admission { week: 0, nonce: 0, out: [0; 32] }, vec![at]));
    let before = world.queries;
    let now = world.now;
    let answer = world.nodes[node].on_request(now, &peer, address(200), Some(bait), Request::Ping);
    assert!(matches!(answer, Response::Pong { .. }));
    world.run(Duration::from_millis(100));
    assert_eq!(world.queries, before, "nobody is dialled");
}

#[test]
fn storing_needs_a_token_of_ones_own() {
    let mut world = World::joined(17, 24);
    let (record, _) = world.record(5, 1);
    let (one, other) = (world.peer(5), world.peer(6));
    let now = world.now;
    let target = *record.key();
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &one, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let store = |record: &Arc<Record>| Request::Store { record: Arc::clone(record), token, cache: false };
    let stolen = world.nodes[0].on_request(now, &other, address(6), None, store(&record));
    assert_eq!(stolen, Response::Refused(Refusal::Token));
    let own = world.nodes[0].on_request(now, &one, address(5), None, store(&record));
    assert!(matches!(own, Response::Stored { .. }), "{own:?}");
}

#[test]
fn a_flood_is_told_to_wait_and_costs_others_nothing() {
    let mut world = World::joined(18, 24);
    let (flooder, other) = (world.peer(5), world.peer(6));
    let now = world.now;
    let mut busy = 0;
    for _ in 0..1000 {
        let answer = world.nodes[0].on_request(now, &flooder, address(5), None, Request::Ping);
        busy += u32::from(matches!(answer, Response::Busy { .. }));
    }
    assert!(busy > 900, "{busy} refused");
    let answer = world.nodes[0].on_request(now, &other, address(6), None, Request::Ping);
    assert!(matches!(answer, Response::Pong { .. }));
}

#[test]
fn nobody_gets_into_a_table_under_another_name() {
    let mut world = World::joined(19, 24);
    let stranger = PeerId::from_bytes([8; 32]);
    let victim = PeerId::from_bytes([9; 32]);
    let claimed = Arc::new(world.contact_of(victim, 60));
    let now = world.now;
    world.nodes[0].on_request(now, &stranger, address(60), Some(claimed), Request::Ping);
    world.run(Duration::from_secs(10));
    assert!(world.nodes[0].table().get(&victim).is_none());
    assert_eq!(world.nodes[0].counters().get(Attack::ForeignContact), 1);
}

#[test]
fn an_answerer_speaks_for_itself_only() {
    let mut world = World::joined(20, 24);
    let victim = PeerId::from_bytes([9; 32]);
    let claimed = Arc::new(world.contact_of(victim, 60));
    let now = world.now;
    let mut node = world.nodes.swap_remove(0);
    let id = node.find(now, *claimed.node_id()).expect("room");
    let mut answered = 0;
    while let Some(output) = node.poll_output() {
        if let Output::Query { id, to, .. } = output {
            let empty = Response::Nodes { contacts: Vec::new(), token: None };
            node.on_response(now, id, to.addresses()[0], Some(Arc::clone(&claimed)), empty, Duration::from_millis(1));
            answered += 1;
        }
    }
    assert!(answered > 0 && node.table().get(&victim).is_none());
    assert_eq!(node.counters().get(Attack::ForeignContact), answered);
    node.cancel(id);
}

#[test]
fn a_key_far_away_is_not_kept_but_a_copy_on_a_path_is() {
    let mut world = World::joined(21, 24);
    // A network of a million, as far as this node knows.
    for part in 0..8_u8 {
        let target = Point::from_bytes([part << 5; 32]);
        let distances: Vec<_> = (1..=20).map(|n| Distance::from_fraction(f64::from(n) * 1e-6)).collect();
        world.nodes[0].estimate.add(&target, &distances);
    }
    let (record, _) = world.record(5, 1);
    let (now, owner, target) = (world.now, world.peer(5), *record.key());
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &owner, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let mut store = |cache| {
        let request = Request::Store { record: Arc::clone(&record), token, cache };
        world.nodes[0].on_request(now, &owner, address(5), None, request)
    };
    assert_eq!(store(false), Response::Refused(Refusal::Far));
    assert!(matches!(store(true), Response::Stored { .. }));
}

#[test]
fn a_forged_record_is_not_stored_and_a_revoked_peer_is_not_served() {
    let mut world = World::joined(22, 24);
    let (record, _) = world.record(5, 1);
    let (now, owner, target) = (world.now, world.peer(5), *record.key());
    let forged = Arc::new(Record::assemble(record.draft().clone(), record.owner_key().to_vec(), vec![0; 32]));
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &owner, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let request = Request::Store { record: forged, token, cache: false };
    let answer = world.nodes[0].on_request(now, &owner, address(5), None, request);
    assert_eq!(answer, Response::Refused(Refusal::Record));
    assert!(world.nodes[0].storage().get(now, &target).is_none());

    let mut draft = record.draft().clone();
    draft.not_after_ms -= 1;
    let proof = Equivocation::new(Arc::clone(&record), Arc::new(sign(draft))).expect("two truths with one seq");
    assert_eq!(world.nodes[0].announce(now, &Arc::new(Fact::Equivocation(proof))), Ok(true));
    let answer = world.nodes[0].on_request(now, &owner, address(5), None, Request::Ping);
    assert_eq!(answer, Response::Refused(Refusal::Revoked));
    world.run(Duration::from_secs(10));
    let told = world.nodes.iter().filter(|node| node.facts().revoked(&owner)).count();
    assert!(told >= 20, "{told} of 24 were told");
}

/// A peer whose proof of work holds, at addresses of its choice.
fn claimant(solo: &Solo, number: u8, addresses: Vec<SocketAddr>) -> Arc<Contact> {
    let peer = PeerId::from_bytes([number; 32]);
    let week = admission::week(&peer, solo.now.unix_ms);
    // The first byte alone decides whether the work is enough; the rest spreads the positions.
    let mut out = [number; 32];
    out[0] = 0;
    Arc::new(Contact::new(peer, Admission { week, nonce: 1, out }, addresses))
}

/// One lookup for each contact, in which everybody names all of them, and they answer where `solo` says they are.
fn meet(solo: &mut Solo, named: &[Arc<Contact>]) {
    let mut answer = |to: &Arc<Contact>, request: &Request| -> Answer {
        let observed = address(0);
        let response = if *request == Request::Ping {
            Response::Pong { observed }
        } else {
            Response::Nodes { contacts: named.iter().take(20).cloned().collect(), token: None }
        };
        Some((Some(Arc::clone(to)), response))
    };
    for contact in named {
        solo.node.find(solo.now, *contact.node_id()).expect("room");
        solo.run(Duration::from_secs(12), &mut answer);
    }
}

#[test]
fn a_host_takes_its_own_networks_share_whatever_address_it_names_first() {
    let v4 = |n: u8| SocketAddr::from(([66, 6, 6, n], 1));
    let v6 = |n: u8| SocketAddr::from(([0x2a00, 1, 2, u16::from(n), 0, 0, 0, 1], 1));
    for real in [&v4 as &dyn Fn(u8) -> SocketAddr, &v6] {
        let (mut solo, _) = Solo::joined(60);
        let fake = |n: u8| vec![address(300 + usize::from(n)), real(n)];
        let sybils: Vec<_> = (1..=60).map(|n| claimant(&solo, n, fake(n))).collect();
        solo.at = (1..=60).zip(&sybils).map(|(n, sybil)| (*sybil.peer(), real(n))).collect();
        for part in sybils.chunks(20) {
            meet(&mut solo, part);
        }
        let asked = sybils.iter().filter(|sybil| solo.asked.iter().any(|(to, ..)| to.peer() == sybil.peer()));
        assert!(asked.count() >= 50, "they were met");
        let home = Subnet::of(real(1).ip());
        let table = solo.node.table();
        let known: Vec<_> = sybils.iter().filter_map(|sybil| table.get(sybil.peer())).collect();
        assert!((1..=10).contains(&known.len()), "{} places for one network", known.len());
        assert!(known.iter().all(|entry| Subnet::of(entry.contact().addresses()[0].ip()) == home));
        let counters = solo.node.counters();
        assert!(counters.get(Attack::TableSubnetBucket) + counters.get(Attack::TableSubnet) > 0);
    }
}

#[test]
fn who_answers_from_an_address_it_does_not_name_is_dialled_at_the_one_it_names() {
    let (mut solo, _) = Solo::joined(61);
    let contact = claimant(&solo, 9, vec![address(300)]);
    solo.at.insert(*contact.peer(), address(301));
    meet(&mut solo, std::slice::from_ref(&contact));
    assert!(solo.asked.iter().any(|(to, _, dial)| to.peer() == contact.peer() && !dial), "it was met");
    assert!(solo.node.table().get(contact.peer()).is_none(), "it never answered where it says it is");
    let dials = |solo: &Solo| solo.asked.iter().filter(|(to, _, dial)| to == &contact && *dial).count();
    let first = dials(&solo);
    assert!((1..=2).contains(&first), "{first} dials");
    // The same once its proof of work is known.
    meet(&mut solo, std::slice::from_ref(&contact));
    assert!(solo.node.table().get(contact.peer()).is_none() && (1..=4).contains(&dials(&solo)));
    assert!(dials(&solo) > first);
    // It is there after all.
    solo.at.clear();
    meet(&mut solo, std::slice::from_ref(&contact));
    assert!(solo.node.table().get(contact.peer()).is_some());
}

#[test]
fn who_was_named_elsewhere_but_answers_where_it_says_is_known_there_at_once() {
    let (mut solo, _) = Solo::joined(64);
    let itself = claimant(&solo, 9, vec![address(300)]);
    let named = Arc::new(Contact::new(*itself.peer(), *itself.admission(), vec![address(301)]));
    solo.at.insert(*itself.peer(), address(300));
    let mut answer = |to: &Arc<Contact>, _: &Request| -> Answer {
        let sender = if to.peer() == itself.peer() { &itself } else { to };
        let response = Response::Nodes { contacts: vec![Arc::clone(&named)], token: None };
        Some((Some(Arc::clone(sender)), response))
    };
    solo.node.find(solo.now, *named.node_id()).expect("room");
    solo.run(Duration::from_secs(12), &mut answer);
    assert_eq!(solo.node.table().get(itself.peer()).map(|entry| Arc::clone(entry.contact())), Some(itself));
    assert!(solo.asked.iter().all(|(.., dial)| !dial));
}

#[test]
fn a_door_with_a_private_address_that_answers_from_a_public_one_names_no_private_addresses() {
    let run = |at: SocketAddr| {
        let (mut solo, _) = Solo::alone(65);
        let door = PeerId::from_bytes([9; 32]);
        let private: SocketAddr = "10.1.1.1:1".parse().expect("an address");
        let named = claimant(&solo, 8, vec!["10.7.7.7:1".parse().expect("an address")]);
        solo.at.insert(door, at);
        solo.node.bootstrap(solo.now, vec![(door, vec![private, at])]);
        let mut answer = |_: &Arc<Contact>, request: &Request| -> Answer {
            let response = if *request == Request::Ping {
                Response::Pong { observed: address(0) }
            } else {
                Response::Nodes { contacts: vec![Arc::clone(&named)], token: None }
            };
            Some((None, response))
        };
        solo.run(Duration::from_secs(12), &mut answer);
        solo.asked.iter().any(|(to, ..)| to.peer() == named.peer())
    };
    assert!(run(SocketAddr::from(([10, 1, 1, 2], 1))));
    assert!(!run(SocketAddr::from(([66, 6, 6, 6], 1))));
}

#[test]
fn a_peer_of_both_families_is_known_by_the_one_that_this_node_has() {
    let (mut solo, _) = Solo::joined(62);
    let v6 = SocketAddr::from(([0x2a00, 1, 2, 3, 0, 0, 0, 1], 1));
    let contact = claimant(&solo, 9, vec![address(300), v6]);
    solo.at.insert(*contact.peer(), v6);
    meet(&mut solo, std::slice::from_ref(&contact));
    let met = |solo: &Solo| solo.node.table().get(contact.peer()).map(|entry| entry.contact().addresses().to_vec());
    assert_eq!(met(&solo), Some(vec![v6, address(300)]));
    assert!(solo.node.remembers(&contact), "in whatever order it names them");
    // Its own word about itself, in its own order, is no news.
    let asked = solo.asked.len();
    solo.node.on_request(solo.now, contact.peer(), v6, Some(Arc::clone(&contact)), Request::Ping);
    solo.run(Duration::from_millis(100), &mut |_, _| None);
    assert_eq!((solo.asked.len(), met(&solo)), (asked, Some(vec![v6, address(300)])));
}

#[test]
fn a_host_has_one_voice_about_our_address_whatever_it_names_first() {
    let (mut solo, _) = Solo::joined(63);
    let real = |n: u8| SocketAddr::from(([66, 6, 6, n], 1));
    let liars: Vec<_> = (1..=20).map(|n| claimant(&solo, n, vec![address(300 + usize::from(n)), real(n)])).collect();
    solo.at = (1..=20).zip(&liars).map(|(n, liar)| (*liar.peer(), real(n))).collect();
    let lie = address(999);
    let mut answer = |to: &Arc<Contact>, _: &Request| -> Answer {
        let response = if liars.contains(to) {
            Response::Pong { observed: lie }
        } else {
            Response::Nodes { contacts: liars.clone(), token: None }
        };
        Some((Some(Arc::clone(to)), response))
    };
    solo.node.find(solo.now, *liars[0].node_id()).expect("room");
    solo.run(Duration::from_secs(12), &mut answer);
    let votes = solo.node.sightings.iter().filter(|vote| vote.value == lie).count();
    assert_eq!(votes, 1);
}
