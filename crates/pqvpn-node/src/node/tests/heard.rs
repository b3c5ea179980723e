// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions wait until the network has been heard: also those that were begun before the node was down, or slept.

use pqvpn_crypto::{
    aead::AeadId,
    identity::PublicIdentity,
    schedule::{EXPORTER_LABEL, EXPORTER_LEN, Exporter, TRANSCRIPT_LABEL, Transcript, exporter_context},
    tls::{Admission, LinkCrypto, Refusal, Side},
};
use pqvpn_wire::{
    control::{CloseReason, Confirm, Message},
    frame::{self, FrameReader},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    link::{Connection, ControlRecv, ControlSend, LinkConfig, LinkError, PlainSocket},
    negotiate::{HelloSent, Local},
};

#[derive(Debug)]
struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A member that has said all but the last word of a negotiation.
struct Halfway {
    _endpoint: Box<dyn Endpoint>,
    connection: Box<dyn Connection>,
    streams: (ControlSend, ControlRecv),
    confirm: Confirm,
}

impl Halfway {
    async fn with(node: &TestNode, seed: &IdentitySeed) -> Self {
        let identity = Arc::new(Identity::from_seed(seed).unwrap());
        let own = identity.peer_id();
        let crypto = Arc::new(LinkCrypto::new(identity, Arc::new(Everybody)));
        let socket = Arc::new(PlainSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let endpoint = Backend::Noq.endpoint(socket, LinkConfig::new(crypto)).unwrap();
        let connection = endpoint.connect(node.at, node.id, None).await.unwrap();
        let (mut send, mut recv) = connection.open_control().await.unwrap();
        let local = Local { aeads: vec![AeadId::ChaCha20Poly1305], indices: vec![1, 2], inner_mtu: 1280 };
        let (sent, hello) = HelloSent::start(local, None);
        send.write_all(&frame::encode(&Message::Hello(hello))).await.unwrap();
        let Message::HelloAck(ack) = read(&mut recv).await else { panic!("no answer") };
        let export = |aead| {
            let context = exporter_context(&own, &node.id, aead);
            let key = |label| {
                let mut bytes = [0; EXPORTER_LEN];
                connection.export(label, &context, &mut bytes).unwrap();
                bytes
            };
            Some((Exporter::from_bytes(key(EXPORTER_LABEL)), Transcript::from_bytes(key(TRANSCRIPT_LABEL))))
        };
        let (_negotiated, confirm) = sent.on_ack(&ack, &export).unwrap();
        Self { _endpoint: endpoint, connection, streams: (send, recv), confirm }
    }

    /// Says the last word, and gives why there is no session then.
    async fn confirm(mut self) -> CloseReason {
        self.streams.0.write_all(&frame::encode(&Message::Confirm(self.confirm))).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.connection.closed()).await;
        let Ok(LinkError::Closed { code, .. }) = ended else { panic!("there is a session: {ended:?}") };
        CloseReason::from_code(code).unwrap()
    }
}

async fn read(recv: &mut ControlRecv) -> Message {
    let (mut reader, mut bytes) = (FrameReader::new(), [0; 4096]);
    loop {
        let count = recv.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the stream ended");
        reader.push(&bytes[..count]);
        if let Some(message) = reader.next_message().unwrap() {
            return message;
        }
    }
}

/// Two members, one of whom does nothing by itself: whoever has its seed speaks for it.
async fn with_a_puppet() -> (TestNode, TestNode, IdentitySeed) {
    let seed = seed();
    let a = start(Identity::generate().unwrap(), Vec::new()).await;
    let b = start(Identity::from_seed(&seed).unwrap(), Vec::new()).await;
    a.show(vec![network(1, &a, &[&a, &b])]).await;
    (a, b, seed)
}

async fn impatient(from: &TestNode, to: &TestNode) -> Result<(), NodeError> {
    from.handle.ping(PeerRef(to.id.to_string()), Duration::from_millis(700)).await.map(drop)
}

#[tokio::test]
async fn a_negotiation_that_was_begun_before_the_node_was_down_makes_no_session_after_it() {
    let (a, b, seed) = with_a_puppet().await;
    let halfway = Halfway::with(&a, &seed).await;
    a.handle.down().await.unwrap();
    a.handle.up().await.unwrap();
    assert_eq!(halfway.confirm().await, CloseReason::Busy);
    assert!(a.peer(&b).await.unwrap().session.is_none());
    // Nor where the network was heard meanwhile: what it received before nobody had looked at.
    let before = Halfway::with_ready(&a, &b, &seed, 1).await;
    a.handle.down().await.unwrap();
    a.handle.up().await.unwrap();
    a.show(vec![NetworkView { downs: 2, ..network(1, &a, &[&a, &b]) }]).await;
    assert_eq!(before.confirm().await, CloseReason::Busy);
    let after = Halfway::with(&a, &seed).await;
    let confirmed = tokio::time::timeout(Duration::from_secs(1), tokio::spawn(after.confirm())).await;
    assert!(confirmed.is_err(), "{confirmed:?}");
    assert!(a.peer(&b).await.unwrap().session.is_some());
    a.stop().await;
    b.stop().await;
}

impl Halfway {
    /// Once the network has been heard after so many times down.
    async fn with_ready(node: &TestNode, other: &TestNode, seed: &IdentitySeed, downs: u64) -> Self {
        node.show(vec![NetworkView { downs, ..network(1, node, &[node, other]) }]).await;
        Self::with(node, seed).await
    }
}

#[tokio::test]
async fn after_a_sleep_sessions_wait_until_the_network_has_been_heard_anew() {
    for has_session in [true, false] {
        let [a, b] = nodes().await;
        gather(1, &[&a, &b]).await;
        if has_session {
            a.ping(&b).await.unwrap();
            b.until("there", |snapshot| snapshot.peers[0].session.is_some()).await;
        }
        a.handle.sleep().await.unwrap();
        if has_session {
            b.until("told", |snapshot| snapshot.peers[0].session.is_none()).await;
        }
        // Whoever was put out meanwhile is faster than any member.
        let back = impatient(&b, &a).await;
        assert!(matches!(back, Err(NodeError::NoAnswer { .. })), "{back:?}");
        let there = impatient(&a, &b).await;
        assert!(matches!(there, Err(NodeError::NoAnswer { .. })), "{there:?}");
        assert!(a.peer(&b).await.unwrap().session.is_none());
        a.show(vec![NetworkView { downs: 1, ..network(1, &a, &[&a, &b]) }]).await;
        a.ping(&b).await.unwrap();
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn a_negotiation_that_was_begun_before_a_sleep_makes_no_session_after_it() {
    let (a, b, seed) = with_a_puppet().await;
    let halfway = Halfway::with(&a, &seed).await;
    a.handle.sleep().await.unwrap();
    assert_eq!(halfway.confirm().await, CloseReason::Busy);
    assert!(a.peer(&b).await.unwrap().session.is_none());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_pinned_peer_waits_for_no_network() {
    let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (to_alice, to_bob) = (PeerConfig::new(alice.peer_id()), PeerConfig::new(bob.peer_id()));
    let (a, b) = (start(alice, vec![to_bob]).await, start(bob, vec![to_alice]).await);
    gather(1, &[&a, &b]).await;
    a.handle.sleep().await.unwrap();
    b.ping(&a).await.unwrap();
    a.until("up", |snapshot| snapshot.peers.iter().any(|peer| peer.session.is_some())).await;
    a.stop().await;
    b.stop().await;
}
