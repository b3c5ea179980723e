// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes find each other through the DHT: by PeerID alone, over restarts, with values, over both QUIC back ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "dht_support/nodes.rs"]
mod dht_support;

use std::time::Duration;

use dht_support::{PATIENCE, Plan, network};
use pqvpn_node::{
    dht::{AdmissionState, DhtError, DhtReport, DhtState, LookupTarget, RecordContent, RecordRef},
    handle::{NodeError, PeerRef, RotateKeys},
    link::Backend,
};

#[tokio::test]
async fn a_pinned_peer_without_an_endpoint_is_found_and_pinged() {
    for backend in [Backend::Noq, Backend::Quinn] {
        let net = network();
        let mut door = Plan::new(net, &[]);
        door.backend = backend;
        let door = door.start().await;
        let mut alice = Plan::new(net, &[&door]);
        let mut bob = Plan::new(net, &[&door]);
        (alice.backend, bob.backend) = (backend, backend);
        alice.pin(bob.id(), None);
        bob.pin(alice.id(), None);
        let (alice, bob) = (alice.start().await, bob.start().await);
        bob.until_published().await;
        alice.until("joined", |report| report.state == DhtState::Joined).await;
        let reply = alice.handle.ping(PeerRef(bob.id.to_string()), PATIENCE).await.unwrap();
        assert_eq!(reply.remote, bob.at);
        assert!(reply.why.contains("DHT"), "{}", reply.why);
        let kept = door.status().await.stored_records + alice.status().await.stored_records;
        assert!(kept > 0, "others than its owner keep the record");
        for node in [alice, bob, door] {
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn eight_nodes_from_one_door_find_each_others_records() {
    let net = network();
    let door = Plan::new(net, &[]).start().await;
    let mut nodes = Vec::new();
    for _ in 0..7 {
        nodes.push(Plan::new(net, &[&door]).start().await);
    }
    nodes.push(door);
    for node in &nodes {
        node.until_published().await;
        node.until("acquainted", |report| report.contacts >= 4).await;
    }
    for seeker in &nodes {
        for sought in &nodes {
            let found = seeker.handle.dht_get(RecordRef::Peer(PeerRef(sought.id.to_string()))).await.unwrap();
            let record = found.record.unwrap_or_else(|| panic!("{} not found: {:#?}", sought.id, found.lookup));
            assert_eq!(record.owner, sought.id);
            assert_eq!(record.content, RecordContent::Peer { addresses: vec![sought.at], capabilities: 0 });
        }
    }
    let nearest = nodes[0].handle.dht_lookup(LookupTarget::Peer(PeerRef(nodes[1].id.to_string()))).await.unwrap();
    assert!(nearest.closest.len() >= 6, "{nearest:#?}");
    let table = nodes[0].handle.dht_table().await.unwrap();
    let contacts: usize = table.buckets.iter().map(|bucket| bucket.contacts.len()).sum();
    assert!(contacts >= 4 && table.own.is_some(), "{table:#?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_value_is_put_found_replaced_and_published_again_after_a_restart() {
    let net = network();
    let door = Plan::new(net, &[]).start().await;
    let writer = Plan::new(net, &[&door]);
    let (seed, config) = (writer.seed.expose().to_owned(), writer.config.clone());
    let writer = writer.start().await;
    let reader = Plan::new(net, &[&door]).start().await;
    writer.until_published().await;
    reader.until("joined", |report| report.state == DhtState::Joined).await;
    let what = |owner: &dht_support::TestNode| RecordRef::Value {
        owner: Some(PeerRef(owner.id.to_string())),
        name: "motd".to_owned(),
    };
    let none = reader.handle.dht_get(what(&writer)).await.unwrap();
    assert_eq!(none.record, None);
    let put = writer.handle.dht_put("motd".to_owned(), b"one".to_vec()).await.unwrap();
    assert!(put.stored > 0, "{put:#?}");
    let one = reader.handle.dht_get(what(&writer)).await.unwrap().record.unwrap();
    assert_eq!(one.content, RecordContent::Value { name: "motd".to_owned(), value: b"one".to_vec() });
    writer.handle.dht_put("motd".to_owned(), b"two".to_vec()).await.unwrap();
    let two = reader.handle.dht_get(what(&writer)).await.unwrap().record.unwrap();
    assert_eq!(two.content, RecordContent::Value { name: "motd".to_owned(), value: b"two".to_vec() });
    assert!(two.seq > one.seq);
    let too_long = writer.handle.dht_put("motd".to_owned(), vec![0; 513]).await;
    assert!(matches!(too_long, Err(NodeError::Dht(DhtError::ValueTooLong { .. }))), "{too_long:?}");

    let solved = |report: &DhtReport| matches!(report.admission, AdmissionState::Solved { .. });
    let admission = writer.until("its proof of work", solved).await.admission;
    let (id, state) = (writer.id, writer.stop().await);
    let mut again = Plan::new(net, &[]);
    again.seed = pqvpn_crypto::identity::IdentitySeed::from_bytes(&seed);
    again.config = config;
    // No door in the config: it finds back by what it remembers, on another port because the old one is let go of late.
    again.config.bootstrap.nodes.clear();
    again.config.node.listen = vec![dht_support::free_port()];
    again.state = state;
    let again = again.start().await;
    assert_eq!(again.id, id);
    let back = again.until_published().await;
    assert_eq!(back.admission, admission, "the proof of work was not searched for again");
    let three = again
        .until("the value again", |report| {
            report.own_records.iter().any(|own| {
                own.stored.is_some_and(|nodes| nodes > 0) && matches!(own.record.content, RecordContent::Value { .. })
            })
        })
        .await;
    let value = three.own_records.iter().find(|own| matches!(own.record.content, RecordContent::Value { .. })).unwrap();
    assert!(value.record.seq > two.seq, "no number is used twice");
    for node in [again, reader, door] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_first_node_is_alone_and_says_so() {
    let node = Plan::new(network(), &[]).start().await;
    let report = node.status().await;
    assert_eq!((report.state, report.enabled, report.admission), (DhtState::Alone, true, AdmissionState::None));
    let nobody = node.handle.dht_get(RecordRef::Peer(PeerRef("00".repeat(32)))).await;
    assert!(matches!(nobody, Err(NodeError::Dht(DhtError::Alone))), "{nobody:?}");
    let health = node.handle.snapshot().await.unwrap().health;
    assert!(health.iter().any(|item| item.code == "dht-alone"), "{health:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_without_the_dht_has_none_and_finds_nobody() {
    let mut plan = Plan::new(network(), &[]);
    plan.config.dht.enabled = false;
    let stranger = Plan::new(network(), &[]).id();
    plan.pin(stranger, None);
    let node = plan.start().await;
    let report = node.status().await;
    assert_eq!((report.state, report.enabled), (DhtState::Off, false));
    let off = node.handle.dht_table().await;
    assert!(matches!(off, Err(NodeError::Dht(DhtError::Off))), "{off:?}");
    let silent = node.handle.ping(PeerRef(stranger.to_string()), Duration::from_millis(300)).await;
    assert!(matches!(silent, Err(NodeError::NoAnswer { .. })), "{silent:?}");
    node.stop().await;
}

#[tokio::test]
async fn who_rotated_its_key_is_named_to_those_who_pin_the_old_one_and_followed_by_nobody() {
    let net = network();
    let door = Plan::new(net, &[]).start().await;
    let bob = Plan::new(net, &[&door]).start_kept().await;
    let mut alice = Plan::new(net, &[&door]);
    alice.pin(bob.id, Some(bob.at));
    let alice = alice.start().await;
    bob.until_published().await;
    alice.until("joined", |report| report.state == DhtState::Joined).await;
    let of_bob = || RecordRef::Peer(PeerRef(bob.id.to_string()));
    assert_eq!(alice.handle.dht_get(of_bob()).await.unwrap().successor, None);

    let report = bob.handle.rotate_keys(RotateKeys::default()).await.unwrap();
    assert_eq!(report.old, bob.id);
    let start = std::time::Instant::now();
    // A lookup in which nobody answered in time says nothing.
    while alice.handle.dht_get(of_bob()).await.ok().and_then(|got| got.successor) != Some(report.new) {
        assert!(start.elapsed() < PATIENCE, "never told");
        tokio::task::yield_now().await;
    }
    let health = alice.handle.snapshot().await.unwrap().health;
    let said = health.iter().find(|item| item.code == "peer-rotated").unwrap_or_else(|| panic!("{health:?}"));
    assert!(said.text.contains(&report.new.to_string()), "{}", said.text);
    // The config alone says whom to trust: the new key gets no session, under either name.
    for name in [bob.id, report.new] {
        let ping = alice.handle.ping(PeerRef(name.to_string()), Duration::from_secs(2)).await;
        assert!(ping.is_err(), "{ping:?}");
    }
    // What was kept of the DHT is the new key's: nothing is put aside, and its record is published.
    bob.until_published().await;
    let health = bob.handle.snapshot().await.unwrap().health;
    assert!(health.iter().all(|item| item.code != "dht-state-file"), "{health:?}");
}
