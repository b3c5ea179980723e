// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incoming handshakes under load: Retry, silence, bounded state, and a place for the honest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use pqvpn_node::link::Backend;

use crate::pair::{Admits, CLIENT, Pair, Party, RTT, SERVER, addr, echo, virtual_time};
use crate::wire::{Fate, Sent};

both_backends!(
    a_retry_costs_one_round_trip_and_the_link_comes_up,
    what_is_under_way_is_finished_whoever_is_turned_away,
    who_turns_everybody_away_dials,
    a_forged_flood_holds_bounded_state_and_lets_the_honest_in,
    the_server_sends_no_more_than_three_times_what_a_forged_source_sent,
    who_falls_silent_is_sent_no_more_than_three_times_what_it_sent,
    a_forged_handshake_takes_nothing_from_links_with_the_address_it_forges,
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

async fn what_is_under_way_is_finished_whoever_is_turned_away(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Everybody, |config| config.gate.retry_threshold = 1);
    // Of the first flight the first datagram arrives, and the others when its handshake has begun.
    pair.wire.set_rule(|sent| match sent.index {
        1..4 if sent.to == addr(SERVER) => Fate::Late(RTT),
        _ => Fate::Arrives,
    });
    let (dialed, accepted) = pair.linked().await;
    assert_eq!(pair.server.stats().retried, 0, "{:?}", pair.server.stats());
    echo(&*dialed, &*accepted, b"hello").await.unwrap();
}

async fn who_turns_everybody_away_dials(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Everybody, |config| config.gate.retry_threshold = 0);
    pair.linked().await;
    assert_eq!(pair.client.stats().retried, 0, "{:?}", pair.client.stats());
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
    let balances = balances(&pair, forged);
    assert!(balances.len() >= 50, "{balances:?}");
}

async fn who_falls_silent_is_sent_no_more_than_three_times_what_it_sent(backend: Backend) {
    // Of each source its first datagrams, one to four of them: then all that comes is repetitions of the server's.
    let first = || {
        let mut left = HashMap::<SocketAddr, usize>::new();
        move |sent: &Sent| {
            let fate = forged(sent);
            let Fate::From(source) = fate else { return fate };
            let some = 1 + left.len() % 4;
            let left = left.entry(source).or_insert(some);
            if *left == 0 {
                return Fate::Lost;
            }
            *left -= 1;
            fate
        }
    };
    let pair = Pair::new(backend);
    pair.wire.set_rule(first());
    let flood = join_all((0..24).map(|_| pair.dial())).await;
    assert!(flood.iter().all(Result::is_err));
    virtual_time(Duration::from_secs(30)).await;
    let balances = balances(&pair, first());
    assert!(balances.len() >= 24, "{balances:?}");
    // The whole answer fits, and is repeated as far as it may be.
    let most = balances.values().map(|(sent, answered)| answered * 10 / sent).max();
    assert!(most >= Some(28) && pair.server.stats().withheld > 0, "{balances:?}");
}

async fn a_forged_handshake_takes_nothing_from_links_with_the_address_it_forges(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    let forger = addr("192.0.2.66:66");
    let end = backend.endpoint(pair.wire.socket("192.0.2.66:66"), Party::new(Admits::Everybody).config()).unwrap();
    // First flights and nothing more: what they entitle to is used up.
    let begun = tokio::time::Instant::now();
    pair.wire.set_rule(move |sent| match sent.from == forger {
        true if sent.at < begun + RTT => Fate::From(addr(CLIENT)),
        true => Fate::Lost,
        false => Fate::Arrives,
    });
    let flood = join_all((0..5).map(|_| end.connect(addr(SERVER), pair.listener.id(), None)));
    let honest = async {
        // The answers have been repeated until no more may be sent.
        virtual_time(Duration::from_secs(5)).await;
        assert!(pair.server.stats().withheld > 0 && pair.server.stats().unfinished > 0, "{:?}", pair.server.stats());
        let ours = [7; 20_000];
        assert_eq!(echo(&*accepted, &*dialed, &ours).await.unwrap(), ours);
        let (back, _) = tokio::join!(pair.server.connect(addr(CLIENT), pair.dialer.id(), None), pair.client.accept());
        let took = back.expect("it is dialed as ever").handshake_time();
        assert!(took < RTT * 2, "{took:?}");
    };
    tokio::join!(flood, honest);
    virtual_time(Duration::from_secs(30)).await;
    assert_eq!(pair.server.stats().unfinished, 0, "{:?}", pair.server.stats());
}

/// Bytes each forged source sent and was sent, none of them ever more than three times as many (RFC 9000 §8.1).
fn balances(pair: &Pair, mut rule: impl FnMut(&Sent) -> Fate) -> HashMap<IpAddr, (usize, usize)> {
    let mut balances: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    for sent in pair.wire.sent() {
        if sent.from == addr(SERVER) {
            let (received, answered) = balances.entry(sent.to.ip()).or_default();
            *answered += sent.bytes.len();
            assert!(*answered <= 3 * *received, "{answered} of {received}");
        } else if let Fate::From(source) = rule(&sent) {
            balances.entry(source.ip()).or_default().0 += sent.bytes.len();
        }
    }
    balances
}

async fn where_there_is_no_place_a_proven_address_gets_silence(backend: Backend) {
    let pair = Pair::with(backend, Admits::Everybody, Admits::Everybody, |config| config.gate.max_unfinished = 0);
    assert!(pair.dial().await.is_err());
    // Retries hold no place; all of them are of before the address was proven.
    let answers = pair.wire.sent_from(addr(SERVER));
    assert!(answers.iter().all(|sent| sent.bytes[0] & 0xb0 == 0xb0), "{answers:?}");
    assert!(pair.server.stats().ignored > 0 && pair.server.stats().open == 0);
}
