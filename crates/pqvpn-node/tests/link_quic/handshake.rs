// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a link is once it is made: ids, keys, streams, its end, and what it costs.

use std::time::Duration;

use pqvpn_crypto::schedule::{EXPORTER_LABEL, Role};
use pqvpn_node::link::{Backend, CLOSE_DROPPED, LinkError};

use crate::pair::{CLIENT, Pair, RTT, SERVER, addr, echo, virtual_time};

both_backends!(
    both_ends_learn_the_other_ends_proven_id,
    both_ends_export_the_same_key,
    a_megabyte_returns_over_a_control_stream,
    first_contact_takes_one_round_trip,
    a_known_key_is_not_sent,
    an_idle_link_sends_nothing,
    a_close_arrives_with_code_and_reason,
    a_dropped_link_closes,
    a_closed_endpoint_closes_its_links_and_accepts_no_more,
    a_silent_address_times_out_and_leaves_nothing,
    every_datagram_is_recognisable_as_quic,
);

async fn both_ends_learn_the_other_ends_proven_id(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    assert_eq!((dialed.peer(), accepted.peer()), (pair.listener.id(), pair.dialer.id()));
    assert_eq!(accepted.public_identity(), &pair.dialer.public);
    assert_eq!((dialed.side(), accepted.side()), (Role::Initiator, Role::Responder));
    assert_eq!((dialed.remote(), accepted.remote()), (addr(SERVER), addr(CLIENT)));
    assert_eq!((pair.client.stats().dialed, pair.server.stats().accepted), (1, 1));
}

async fn both_ends_export_the_same_key(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    let mut keys = [[0; 64]; 3];
    dialed.export(EXPORTER_LABEL, b"context", &mut keys[0]).unwrap();
    accepted.export(EXPORTER_LABEL, b"context", &mut keys[1]).unwrap();
    accepted.export(EXPORTER_LABEL, b"another", &mut keys[2]).unwrap();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    let too_long = dialed.export(EXPORTER_LABEL, b"", &mut vec![0; 48 * 255 + 1]);
    assert!(matches!(too_long, Err(LinkError::Local(_))));
}

async fn a_megabyte_returns_over_a_control_stream(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[(n % 3) as usize]).collect();
    assert!(echo(&*dialed, &*accepted, &bytes).await.unwrap() == bytes);
    assert!(echo(&*accepted, &*dialed, &bytes).await.unwrap() == bytes);
    assert!((RTT..RTT * 2).contains(&dialed.rtt()));
}

async fn first_contact_takes_one_round_trip(backend: Backend) {
    let pair = Pair::new(backend);
    let began = tokio::time::Instant::now();
    let (dialed, accepted) = pair.linked().await;
    // In virtual time, so exact but for the pacing of a dozen datagrams.
    assert!(dialed.handshake_time() < RTT + RTT / 10, "{:?}", dialed.handshake_time());
    assert!(accepted.handshake_time() < RTT + RTT / 10, "{:?}", accepted.handshake_time());
    let hello = pair.wire.sent_from(addr(CLIENT)).into_iter().filter(|sent| sent.at < began + RTT);
    assert_eq!(hello.count(), 3, "a ClientHello of three datagrams");
}

async fn a_known_key_is_not_sent(backend: Backend) {
    let pair = Pair::new(backend);
    let bytes_from_server = || pair.wire.sent_from(addr(SERVER)).iter().map(|sent| sent.bytes.len()).sum::<usize>();
    drop(pair.linked().await);
    virtual_time(RTT * 10).await;
    let full = bytes_from_server();
    let known = Some(pair.listener.public.clone());
    let (dialed, accepted) =
        tokio::join!(pair.client.connect(addr(SERVER), pair.listener.id(), known), pair.accepted());
    assert_eq!(dialed.unwrap().peer(), pair.listener.id());
    drop(accepted);
    virtual_time(RTT * 10).await;
    let short = bytes_from_server() - full;
    assert!(short + 2400 < full, "{short} bytes with the key known, {full} without");
}

async fn an_idle_link_sends_nothing(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    echo(&*dialed, &*accepted, b"once").await.unwrap();
    virtual_time(Duration::from_secs(5)).await;
    let before = pair.wire.sent().len();
    virtual_time(Duration::from_secs(50 * 60)).await;
    assert_eq!(pair.wire.sent().len(), before);
    echo(&*dialed, &*accepted, b"still here").await.unwrap();
    // Beyond the idle timeout it ends as silently.
    virtual_time(Duration::from_secs(5)).await;
    let before = pair.wire.sent().len();
    assert_eq!(dialed.closed().await, LinkError::TimedOut);
    assert_eq!(accepted.closed().await, LinkError::TimedOut);
    assert_eq!(pair.wire.sent().len(), before);
}

async fn a_close_arrives_with_code_and_reason(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    dialed.close(7, "had enough");
    assert_eq!(accepted.closed().await, LinkError::Closed { code: 7, reason: "had enough".into() });
    assert_eq!(dialed.closed().await, LinkError::ClosedByUs);
    assert_eq!(dialed.open_control().await.err(), Some(LinkError::ClosedByUs));
}

async fn a_dropped_link_closes(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    let (stream, end) = (dialed.open_control().await.unwrap(), dialed.closed());
    drop(dialed);
    let code = u64::from(CLOSE_DROPPED);
    assert_eq!(accepted.closed().await, LinkError::Closed { code, reason: String::new() });
    assert_eq!(end.await, LinkError::ClosedByUs);
    drop(stream);
}

async fn a_closed_endpoint_closes_its_links_and_accepts_no_more(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, _accepted) = pair.linked().await;
    pair.server.close();
    assert_eq!(dialed.closed().await, LinkError::Closed { code: 0, reason: String::new() });
    assert!(pair.server.accept().await.is_none());
    assert!(pair.dial().await.is_err());
    pair.server.drained().await;
}

async fn a_silent_address_times_out_and_leaves_nothing(backend: Backend) {
    let pair = Pair::new(backend);
    let began = tokio::time::Instant::now();
    let dialed = pair.client.connect(addr("192.0.2.99:1"), pair.listener.id(), None).await;
    assert_eq!(dialed.err(), Some(LinkError::TimedOut));
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    virtual_time(Duration::from_secs(60)).await;
    assert_eq!(pair.client.stats().open, 0);
}

async fn every_datagram_is_recognisable_as_quic(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    echo(&*dialed, &*accepted, &[0; 100_000]).await.unwrap();
    dialed.close(0, "");
    accepted.closed().await;
    let sent = pair.wire.sent();
    assert!(sent.len() > 100);
    assert!(sent.iter().all(|sent| sent.bytes[0] & 0x40 != 0), "the QUIC bit tells links from tunnel packets");
    assert!(sent.iter().all(|sent| sent.bytes.len() <= 1200));
}
