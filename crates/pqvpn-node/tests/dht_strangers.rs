// SPDX-License-Identifier: MIT OR Apache-2.0
//! What strangers get from a live node: answers to signed questions, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "dht_support/nodes.rs"]
mod dht_support;
#[path = "dht_support/raw.rs"]
mod raw;

use dht_support::{PATIENCE, Plan, TestNode, counter, network};
use pqvpn_crypto::{
    identity::Identity,
    pow::{Challenge, Difficulty, solve},
};
use pqvpn_node::{
    handle::{NodeError, PeerRef},
    link::{LinkError, PeerReason},
    snapshot::PeerState,
};
use pqvpn_wire::{
    control::{CloseReason, Hello, Message},
    dht::{
        Admission, Contact, Request, Response,
        envelope::{
            Expect, Header, MAX_MESSAGE, REQUEST_TYPE, RESPONSE_TYPE, Sealed, frame, open_request, seal_request,
            seal_response,
        },
    },
    frame as control_frame,
};
use raw::{Raw, exchange, now_ms};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

fn hello() -> Vec<u8> {
    let hello = Hello { aeads: vec![1, 2], indices: vec![7], psk_id: None, inner_mtu: 1420 };
    control_frame::encode(&Message::Hello(hello))
}

#[tokio::test]
async fn a_stranger_gets_answers_but_never_a_session() {
    let net = network();
    let node = Plan::new(net, &[]).start().await;
    let stranger = Raw::at([127, 0, 0, 1], net);
    let link = stranger.link(node.id, node.at).await.unwrap();
    let answer = stranger.ask(&*link, &stranger.ping(&stranger.header(node.id))).await;
    assert_eq!(answer, Some(Response::Pong { observed: stranger.address() }));
    // A session on a link that is for the DHT is no request of the DHT.
    assert!(exchange(&*link, &hello()).await.is_empty());
    assert_eq!(counter(&node.status().await, "stream-no-frame"), 1);

    let link = stranger.link(node.id, node.at).await.unwrap();
    let (mut send, _recv) = link.open_control().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    let end = timeout(PATIENCE, link.closed()).await.unwrap();
    let LinkError::Closed { code, .. } = end else { panic!("{end:?}") };
    assert_eq!(CloseReason::from_code(code), Some(CloseReason::NotAdmitted));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_pinned_sees_the_same_refusal_with_the_dht_and_without() {
    for enabled in [true, false] {
        let net = network();
        let mut bob = Plan::new(net, &[]);
        bob.config.dht.enabled = enabled;
        let bob = bob.start().await;
        let mut alice = Plan::new(net, &[]);
        alice.pin(bob.id, Some(bob.at));
        let alice = alice.start().await;
        let refused = alice.handle.ping(PeerRef(bob.id.to_string()), PATIENCE).await;
        let Err(NodeError::Refused { why, .. }) = refused else { panic!("{enabled}: {refused:?}") };
        assert_eq!(why, LinkError::RefusedByPeer(PeerReason::NotAccepted).to_string(), "{enabled}");
        assert_eq!(alice.handle.snapshot().await.unwrap().peers[0].state, PeerState::Refused);
        alice.stop().await;
        bob.stop().await;
    }
}

#[tokio::test]
async fn without_the_dht_a_stranger_has_no_link_at_all() {
    let net = network();
    let mut plan = Plan::new(net, &[]);
    plan.config.dht.enabled = false;
    let node = plan.start().await;
    let stranger = Raw::at([127, 0, 0, 1], net);
    let link = stranger.link(node.id, node.at).await.unwrap();
    let end = timeout(PATIENCE, link.closed()).await.unwrap();
    assert_eq!(end, LinkError::RefusedByPeer(PeerReason::NotAccepted));
    node.stop().await;
}

/// Asks honestly, after something dishonest.
async fn still_answers(stranger: &Raw, node: &TestNode, link: &dyn pqvpn_node::link::Connection) {
    let answer = stranger.ask(link, &stranger.ping(&stranger.header(node.id))).await;
    assert!(matches!(answer, Some(Response::Pong { .. })), "{answer:?}");
}

#[tokio::test]
async fn every_bad_message_is_refused_for_its_reason_and_nobody_else_pays() {
    let net = network();
    let node = Plan::new(net, &[]).start().await;
    let stranger = Raw::at([127, 0, 0, 1], net);
    let other = Identity::generate().unwrap();
    let link = stranger.link(node.id, node.at).await.unwrap();
    let honest = stranger.header(node.id);
    let sealed = |header: &Header| frame(REQUEST_TYPE, &stranger.ping(header).bytes);
    let mut unsigned = stranger.ping(&honest).bytes;
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let foreign = seal_request(&other, &honest, &Request::Ping, None).unwrap().bytes;
    let as_other = Header { from: other.peer_id(), ..stranger.header(node.id) };
    let by_other = seal_request(&other, &as_other, &Request::Ping, None).unwrap().bytes;
    let cut = stranger.ping(&honest).bytes[..200].to_vec();
    let hour = 3_600_000;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("envelope-bad-signature", frame(REQUEST_TYPE, &unsigned)),
        ("envelope-bad-signature", frame(REQUEST_TYPE, &foreign)),
        ("envelope-not-from-link", frame(REQUEST_TYPE, &by_other)),
        ("envelope-misdirected", sealed(&Header { to: other.peer_id(), ..stranger.header(node.id) })),
        ("envelope-expired", sealed(&Header { ts_ms: now_ms() - hour, ..stranger.header(node.id) })),
        ("envelope-future", sealed(&Header { ts_ms: now_ms() + hour, ..stranger.header(node.id) })),
        ("envelope-network", sealed(&Header { network: pqvpn_wire::dht::NetworkId::OPEN, ..stranger.header(node.id) })),
        ("envelope-wrong-answer", sealed(&Header { re: Some([1; 32]), ..stranger.header(node.id) })),
        ("envelope-malformed", frame(REQUEST_TYPE, &cut)),
        ("envelope-malformed", frame(REQUEST_TYPE, b"")),
        ("stream-no-frame", frame(RESPONSE_TYPE, &stranger.ping(&stranger.header(node.id)).bytes)),
        ("stream-no-frame", frame(REQUEST_TYPE, &vec![0; MAX_MESSAGE + 1])),
        ("stream-no-frame", [sealed(&stranger.header(node.id)), vec![0]].concat()),
        ("stream-no-frame", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    still_answers(&stranger, &node, &*link).await;
    for (reason, bytes) in cases {
        let before = node.status().await;
        assert!(exchange(&*link, &bytes).await.is_empty(), "{reason}: no word comes back");
        let after = node.until(reason, |report| report.rpc.refused > before.rpc.refused).await;
        assert_eq!(counter(&after, reason), counter(&before, reason) + 1, "{reason}");
        assert_eq!(after.rpc.refused, before.rpc.refused + 1, "{reason}");
        still_answers(&stranger, &node, &*link).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_request_is_answered_once_also_when_it_comes_over_another_link() {
    let net = network();
    let node = Plan::new(net, &[]).start().await;
    let stranger = Raw::at([127, 0, 0, 1], net);
    let first = stranger.link(node.id, node.at).await.unwrap();
    let sealed: Sealed = stranger.ping(&stranger.header(node.id));
    assert!(stranger.ask(&*first, &sealed).await.is_some());
    assert_eq!(stranger.ask(&*first, &sealed).await, None);
    let second = stranger.link(node.id, node.at).await.unwrap();
    assert_eq!(stranger.ask(&*second, &sealed).await, None);
    node.until("counted", |report| counter(report, "envelope-replayed") == 2).await;
    // Somebody else cannot use it either: it names its sender, and the link proves who that is.
    let thief = Raw::at([127, 0, 0, 1], net);
    let link = thief.link(node.id, node.at).await.unwrap();
    assert!(exchange(&*link, &frame(REQUEST_TYPE, &sealed.bytes)).await.is_empty());
    node.until("counted", |report| counter(report, "envelope-not-from-link") == 1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_requests_is_cut_and_the_link_lives_on() {
    let net = network();
    let node = Plan::new(net, &[]).start().await;
    let stranger = Raw::at([127, 0, 0, 1], net);
    let link = stranger.link(node.id, node.at).await.unwrap();
    let mut answered = 0;
    let mut sent = 0;
    while counter(&node.status().await, "stream-hurried") == 0 {
        // Rubbish costs the flooder nothing; it costs the node no signature check either once the allowance is gone.
        let _nothing = exchange(&*link, &frame(REQUEST_TYPE, b"x")).await;
        sent += 1;
        assert!(sent < 10_000, "never cut");
    }
    assert!(sent >= 60, "an allowance of bursts: {sent}");
    while answered == 0 {
        let answer = stranger.ask(&*link, &stranger.ping(&stranger.header(node.id))).await;
        answered += usize::from(answer.is_some());
    }
    node.stop().await;
}

#[tokio::test]
async fn strangers_fill_their_places_and_a_pinned_peer_still_gets_its_session() {
    let net = network();
    let mut node = Plan::new(net, &[]);
    let mut friend = Plan::new(net, &[]);
    node.pin(friend.id(), None);
    let node = node.start().await;
    friend.pin(node.id, Some(node.at));
    let mut crowd = Vec::new();
    for n in 0..128_u8 {
        let stranger = Raw::at([127, 1, 0, n + 1], net);
        let link = stranger.link(node.id, node.at).await.unwrap();
        still_answers(&stranger, &node, &*link).await;
        crowd.push((stranger, link));
    }
    let full = node.status().await;
    assert_eq!((full.links.inbound, counter(&full, "stranger-evicted")), (128, 0));

    let friend = friend.start().await;
    friend.handle.ping(PeerRef(node.id.to_string()), PATIENCE).await.unwrap();
    let after = node.status().await;
    assert_eq!(counter(&after, "stranger-evicted"), 0, "nobody had to leave for a friend");

    let late = Raw::at([127, 2, 0, 1], net);
    let link = late.link(node.id, node.at).await.unwrap();
    still_answers(&late, &node, &*link).await;
    let report = node.until("one left", |report| report.links.inbound == 128).await;
    assert_eq!(counter(&report, "stranger-evicted"), 1);
    let (_its_endpoint, oldest) = crowd.remove(0);
    let end = timeout(PATIENCE, oldest.closed()).await.unwrap();
    assert!(matches!(end, LinkError::Closed { .. }), "{end:?}");
    friend.stop().await;
    node.stop().await;
}

/// What a bad door says to a request; nothing for silence.
type Answer = fn(&Raw, &Header) -> Option<Vec<u8>>;

/// Answers every request of the node in that way.
async fn fake_door(raw: &Raw, answer: Answer) {
    let mut silent = Vec::new();
    while let Some(link) = raw.endpoint.accept().await {
        let link = link.unwrap();
        while let Ok((mut send, mut recv)) = link.accept_control().await {
            let mut bytes = Vec::new();
            let _cut = recv.read_to_end(&mut bytes).await;
            let (me, network) = (raw.identity.peer_id(), raw.network);
            let expect = Expect { network, me, now_ms: now_ms(), re: None };
            let opened = open_request(&bytes[8..], link.public_identity(), &expect).unwrap();
            let header = Header { re: Some(opened.hash), ..raw.header(link.peer()) };
            if let Some(bytes) = answer(raw, &header) {
                let _gone = send.write_all(&frame(RESPONSE_TYPE, &bytes)).await;
                let _gone = send.shutdown().await;
            } else {
                silent.push((send, recv));
            }
        }
    }
}

fn pong(identity: &Identity, header: &Header) -> Vec<u8> {
    let observed = "127.0.0.1:9".parse().unwrap();
    seal_response(identity, header, &Response::Pong { observed }, None).unwrap().bytes
}

#[tokio::test]
async fn bad_answers_of_a_door_are_refused_and_a_silent_one_holds_nobody() {
    let cases: [(&str, Answer); 5] = [
        ("envelope-bad-signature", |_, header| Some(pong(&Identity::generate().unwrap(), header))),
        ("envelope-wrong-answer", |raw, header| {
            Some(pong(&raw.identity, &Header { re: Some([9; 32]), ..header.clone() }))
        }),
        ("envelope-misdirected", |raw, header| {
            Some(pong(&raw.identity, &Header { to: raw.identity.peer_id(), ..header.clone() }))
        }),
        ("envelope-malformed", |_, _| Some(b"pong".to_vec())),
        ("", |_, _| None),
    ];
    for (reason, answer) in cases {
        let net = network();
        let door = Raw::at([127, 0, 0, 1], net);
        let mut plan = Plan::new(net, &[]);
        let entry = format!("pqvpn://{}@{}", door.identity.peer_id(), door.address());
        plan.config.bootstrap.nodes = vec![entry.parse().unwrap()];
        let node = plan.start().await;
        let watch = async {
            let report = node.until("failed", |report| report.rpc.failed > 0).await;
            assert_eq!(report.rpc.answered, 0, "{reason}");
            if !reason.is_empty() {
                assert!(counter(&report, reason) > 0, "{reason}");
            }
            let doors = node.handle.bootstrap_list().await.unwrap();
            let state = &doors[0].state;
            assert!(matches!(state, pqvpn_node::dht::DoorState::Failed { .. }), "{reason}: {state:?}");
            assert!(doors[0].verified_ms.is_some(), "the identity was proven all the same");
        };
        tokio::select! {
            () = fake_door(&door, answer) => panic!("{reason}: the link ended"),
            () = watch => {}
        }
        node.stop().await;
    }
}

/// Takes streams until the link ends and answers each ping, with its word about itself.
async fn answer_pings(raw: &Raw, link: &dyn pqvpn_node::link::Connection, contact: &Contact) {
    while let Ok((mut send, mut recv)) = link.accept_control().await {
        let mut bytes = Vec::new();
        let _cut = recv.read_to_end(&mut bytes).await;
        let expect = Expect { network: raw.network, me: raw.identity.peer_id(), now_ms: now_ms(), re: None };
        let opened = open_request(&bytes[8..], link.public_identity(), &expect).unwrap();
        let header = Header { re: Some(opened.hash), ..raw.header(link.peer()) };
        let pong = Response::Pong { observed: link.remote() };
        let sealed = seal_response(&raw.identity, &header, &pong, Some(contact)).unwrap();
        let _gone = send.write_all(&frame(RESPONSE_TYPE, &sealed.bytes)).await;
        let _gone = send.shutdown().await;
    }
}

#[tokio::test]
async fn a_contact_counts_only_when_it_answers_at_its_first_address() {
    // The table counts a contact in the network of its first address: there it must be met, wherever else it can be.
    for first_is_real in [true, false] {
        let net = network();
        let node = Plan::new(net, &[]).start().await;
        let (stranger, silent) = (Raw::at([127, 3, 0, 1], net), dht_support::free_port());
        let foreign = std::net::SocketAddr::from(([127, 200, 0, 1], silent.port()));
        let peer = stranger.identity.peer_id();
        let week = pqvpn_dht::admission::week(&peer, now_ms());
        let challenge = Challenge { network: net, peer, week };
        let (nonce, out) = solve(&challenge, Difficulty(2), 0, &|| false).unwrap();
        let addresses =
            if first_is_real { vec![stranger.address(), foreign] } else { vec![foreign, stranger.address()] };
        let contact = Contact::new(peer, Admission { week, nonce, out }, addresses);
        let link = stranger.link(node.id, node.at).await.unwrap();
        let header = stranger.header(node.id);
        let hello = seal_request(&stranger.identity, &header, &Request::Ping, Some(&contact)).unwrap();
        assert!(stranger.ask(&*link, &hello).await.is_some());
        let dialed = async {
            while let Some(link) = stranger.endpoint.accept().await {
                answer_pings(&stranger, &*link.unwrap(), &contact).await;
            }
        };
        let over = |report: &pqvpn_node::dht::DhtReport| report.rpc.answered + report.rpc.failed > 0;
        let met = async {
            let report = node.until("asked", |report| over(report) && (report.contacts == 1 || !first_is_real)).await;
            (report.rpc.answered > 0, report.contacts, node.until("settled", over).await.contacts)
        };
        let outcome = tokio::select! {
            outcome = met => outcome,
            ((), ()) = async { tokio::join!(dialed, answer_pings(&stranger, &*link, &contact)) } => {
                panic!("the node has gone")
            }
        };
        let contacts = usize::from(first_is_real);
        assert_eq!(outcome, (first_is_real, contacts, contacts), "first is real: {first_is_real}");
        node.stop().await;
    }
}
