// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incoming handshakes under load: Retry, silence, bounded state, and a place for the honest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use pqvpn_node::link::Backend;

use crate::pair::{Admits, Pair, Party, RTT, SERVER, addr, echo, virtual_time};
use crate::wire::{Fate, Sent};

both_backends!(
    a_retry_costs_one_round_trip_and_the_link_comes_up,
    a_forged_flood_holds_bounded_state_and_lets_the_honest_in,
    the_server_sends_no_more_than_three_times_what_a_forged_source_sent,
    where_there_is_no_place_a_proven_address_gets_silence,
);

async fn a_retry_costs_one_round_trip_and_the_link_comes_up(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Everybody, |config| config.gate.retry_threshold = 0);
    let (dialed, accepted) = pair.linked().await;
    // Up to one per datagram of the ClientHello; the client takes the first.
    assert!((1..=3).contains(&pair.server.stats().retried), "{:?}", pair.server.stats());
    assert!(dialed.handshake_time() < RTT * 2 + RTT / 5, "{:?}", dialed.handshake_time());
    echo(&*dialed, &*accepted, b"hello").await.unwrap();
}

/// A source of its own for each connection, from the connection id in a long header (RFC 9000 §17.2).
fn forged(sent: &Sent) -> Fate {
    let bytes = &sent.bytes;
    if sent.to != addr(SERVER) || bytes[0] & 0x80 == 0 {
        return Fate::Lost;
    }
    let ip = IpAddr::V4(Ipv4Addr::new(10, bytes[6], bytes[7], bytes[8]));
    Fate::From(SocketAddr::new(ip, 1))
}

async fn a_forged_flood_holds_bounded_state_and_lets_the_honest_in(backend: Backend) {
    let pair = Pair::new(backend);
    let honest = Party::new(Admits::Everybody);
    let honest_addr = addr("192.0.2.77:77");
    let honest_end = backend.endpoint(pair.wire.socket("192.0.2.77:77"), honest.config()).unwrap();
    pair.wire.set_rule(
        move |sent| {
            if sent.from == honest_addr || sent.to == honest_addr { Fate::Arrives } else { forged(sent) }
        },
    );
    let flood = join_all((0..400).map(|_| pair.dial()));
    let honest_dial = async {
        virtual_time(RTT * 2).await;
        let stats = pair.server.stats();
        assert_eq!(stats.unfinished, 32, "the threshold of the configuration");
        assert!(stats.open <= 33, "{stats:?}");
        assert!(stats.retried >= 368, "{stats:?}");
        let dial = honest_end.connect(addr(SERVER), pair.listener.id(), None);
        let accepted = async {
            loop {
                if let Ok(link) = pair.accepted().await {
                    break link;
                }
            }
        };
        let (dialed, accepted) = tokio::join!(dial, accepted);
        assert_eq!(accepted.peer(), honest.id());
        assert!(dialed.unwrap().handshake_time() < RTT * 3);
    };
    let (flood, ()) = tokio::join!(flood, honest_dial);
    assert!(flood.iter().all(Result::is_err));
    // Also of those whose first packet was the close of a client that gave up.
    virtual_time(Duration::from_secs(30)).await;
    let stats = pair.server.stats();
    assert_eq!((stats.unfinished, stats.open), (0, 0), "{stats:?}");
}

async fn the_server_sends_no_more_than_three_times_what_a_forged_source_sent(backend: Backend) {
    let pair = Pair::new(backend);
    pair.wire.set_rule(forged);
    let flood = join_all((0..50).map(|_| pair.dial())).await;
    assert!(flood.iter().all(Result::is_err));
    let mut balance: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    for sent in pair.wire.sent() {
        if sent.from == addr(SERVER) {
            balance.entry(sent.to.ip()).or_default().1 += sent.bytes.len();
        } else if let Fate::From(source) = forged(&sent) {
            balance.entry(source.ip()).or_default().0 += sent.bytes.len();
        }
    }
    // RFC 9000 §8.1.
    let worst = balance.values().find(|(sent, answered)| *answered > 3 * sent);
    assert!(balance.len() >= 50 && worst.is_none(), "{worst:?}");
}

async fn where_there_is_no_place_a_proven_address_gets_silence(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Everybody, |config| config.gate.max_unfinished = 0);
    assert!(pair.dial().await.is_err());
    // Retries hold no place; all of them are of before the address was proven.
    let answers = pair.wire.sent_from(addr(SERVER));
    assert!(answers.iter().all(|sent| sent.bytes[0] & 0xb0 == 0xb0), "{answers:?}");
    assert!(pair.server.stats().ignored > 0 && pair.server.stats().open == 0);
}
