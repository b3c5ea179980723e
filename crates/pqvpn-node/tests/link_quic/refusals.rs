// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who does not get a link, and that both ends can say why.

use std::sync::Arc;

use pqvpn_crypto::tls::Refusal;
use pqvpn_node::link::{Backend, LinkError, PeerReason};

use crate::pair::{Admits, Pair, Party, RTT, SERVER, addr, virtual_time};

both_backends!(
    the_listener_refuses_an_unknown_peer,
    the_dialer_refuses_a_peer_it_does_not_admit,
    the_dialer_refuses_another_peer_than_the_one_dialled,
    a_known_key_of_another_peer_does_not_help,
    garbage_is_met_with_silence,
);

const NOT_ACCEPTED: LinkError = LinkError::RefusedByPeer(PeerReason::NotAccepted);

async fn the_listener_refuses_an_unknown_peer(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Nobody, |_| {});
    let (dialed, accepted) = tokio::join!(pair.dial(), pair.accepted());
    assert_eq!(accepted.err(), Some(LinkError::RefusedByUs(Refusal::UnknownPeer)));
    // TLS 1.3: the client is done first and learns the verdict after.
    assert_eq!(dialed.unwrap().closed().await, NOT_ACCEPTED);
    assert_eq!(pair.listener.crypto.refusals().get(Refusal::UnknownPeer), 1);
    assert_eq!(pair.server.stats().failed, 1);
}

async fn the_dialer_refuses_a_peer_it_does_not_admit(backend: Backend) {
    let pair = Pair::with(backend, Admits::Nobody, Admits::Everybody, |_| {});
    let (dialed, accepted) = tokio::join!(pair.dial(), pair.accepted());
    assert_eq!(dialed.err(), Some(LinkError::RefusedByUs(Refusal::UnknownPeer)));
    assert_eq!(accepted.err(), Some(NOT_ACCEPTED));
    assert_eq!(pair.dialer.crypto.refusals().get(Refusal::UnknownPeer), 1);
    assert_eq!(pair.listener.crypto.refusals().get(Refusal::RefusedByPeer), 1);
}

async fn the_dialer_refuses_another_peer_than_the_one_dialled(backend: Backend) {
    let pair = Pair::new(backend);
    let expected = Party::new(Admits::Everybody).id();
    let (dialed, accepted) = tokio::join!(pair.client.connect(addr(SERVER), expected, None), pair.accepted());
    assert_eq!(dialed.err(), Some(LinkError::RefusedByUs(Refusal::WrongPeerId)));
    assert_eq!(accepted.err(), Some(NOT_ACCEPTED));
    assert_eq!(pair.dialer.crypto.refusals().get(Refusal::WrongPeerId), 1);
}

async fn a_known_key_of_another_peer_does_not_help(backend: Backend) {
    let pair = Pair::new(backend);
    let other = Party::new(Admits::Everybody);
    let dial = pair.client.connect(addr(SERVER), other.id(), Some(other.public.clone()));
    let (dialed, _) = tokio::join!(dial, pair.accepted());
    assert!(matches!(dialed, Err(LinkError::RefusedByUs(_))), "{dialed:?}");
}

async fn garbage_is_met_with_silence(backend: Backend) {
    let pair = Pair::new(backend);
    let stranger = pair.wire.socket("203.0.113.7:7");
    for first in 0..=255_u8 {
        for len in [1, 20, 43, 600] {
            let mut bytes = vec![0xa5; len];
            bytes[0] = first;
            send(&stranger, &bytes);
        }
        virtual_time(RTT).await;
    }
    virtual_time(RTT * 4).await;
    assert_eq!(pair.wire.sent_from(addr(SERVER)).len(), 0);
    let stats = pair.server.stats();
    assert_eq!(stats.open, 0);
    assert_eq!(stats.strangers > 0, backend == Backend::Noq, "what looks like QUIC is counted: {stats:?}");
    drop(pair.linked().await);
}

fn send(socket: &Arc<crate::wire::WireSocket>, bytes: &[u8]) {
    use pqvpn_node::link::{LinkSocket, LinkTransmit};
    let transmit = LinkTransmit { to: addr(SERVER), src_ip: None, ecn: None, contents: bytes, segment_size: None };
    socket.try_send(&transmit).unwrap();
}
