// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links whose peer's address changes, or seems to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pqvpn_node::link::{Backend, LinkError};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::pair::{CLIENT, Pair, RTT, SERVER, addr, echo, virtual_time};
use crate::wire::Fate;

both_backends!(
    a_link_outlives_a_change_of_address_where_it_may_roam,
    who_has_a_link_and_forges_sources_has_others_sent_little,
    links_that_move_together_go_on,
    a_link_that_moves_in_the_middle_of_a_transfer_goes_on,
    a_link_that_hangs_where_it_moved_to_is_closed_and_made_again,
    a_link_whose_new_address_answers_too_late_is_closed_and_made_again,
    a_link_that_somebody_else_moved_is_its_peers_when_it_speaks_again,
);

/// Bytes that went from the server to an address.
fn sent_to(pair: &Pair, is_theirs: impl Fn(SocketAddr) -> bool) -> usize {
    pair.wire.sent_from(addr(SERVER)).iter().filter(|sent| is_theirs(sent.to)).map(|sent| sent.bytes.len()).sum()
}

async fn a_link_outlives_a_change_of_address_where_it_may_roam(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    virtual_time(RTT * 5).await;
    let elsewhere = addr("198.51.100.9:999");
    pair.wire.move_socket(addr(CLIENT), elsewhere);
    if backend == Backend::Quinn {
        assert_eq!(echo(&*dialed, &*accepted, b"from elsewhere").await.err(), Some(LinkError::TimedOut));
        assert_eq!((accepted.remote(), sent_to(&pair, |to| to == elsewhere)), (addr(CLIENT), 0));
        return;
    }
    echo(&*dialed, &*accepted, b"from elsewhere").await.unwrap();
    assert_eq!(accepted.remote(), elsewhere);
    // Whatever the link carries there then, none of it is held back.
    let much = vec![7; 1 << 20];
    assert_eq!(echo(&*accepted, &*dialed, &much).await.unwrap(), much);
    assert_eq!(pair.server.stats().withheld, 0);
}

/// Bytes that somebody was sent for how many in how long, when the link's own client sends a little a hundred times a second
/// and `forge` gives the ports that they seem to come from there.
async fn sent_for(pair: &Pair, mut forge: impl FnMut(u16) -> Option<u16> + Send + 'static) -> (usize, usize, Duration) {
    let (dialed, accepted) = pair.linked().await;
    virtual_time(RTT * 5).await;
    let (victim, began) = (addr("198.51.100.9:0").ip(), Instant::now());
    let (asked, mut index) = (Arc::new(AtomicUsize::new(0)), 0);
    let counted = Arc::clone(&asked);
    pair.wire.set_rule(move |sent| {
        if sent.from != addr(CLIENT) {
            return Fate::Arrives;
        }
        index += 1;
        let Some(port) = forge(index) else { return Fate::Arrives };
        counted.fetch_add(sent.bytes.len(), Ordering::Relaxed);
        Fate::From(SocketAddr::new(victim, port))
    });
    let ask = async {
        let (mut send, _recv) = dialed.open_control().await.unwrap();
        for _ in 0..1000 {
            send.write_all(b"a little").await.unwrap();
            virtual_time(RTT / 10).await;
        }
    };
    let listen = async {
        let (_send, mut recv) = accepted.accept_control().await.unwrap();
        tokio::io::copy(&mut recv, &mut tokio::io::sink()).await.ok();
    };
    tokio::select! { () = ask => {}, () = listen => {} }
    pair.wire.set_rule(|_| Fate::Arrives);
    // The link goes on from where its handshake was.
    let much = vec![7; 100_000];
    assert_eq!(echo(&*dialed, &*accepted, &much).await.unwrap(), much);
    (sent_to(pair, |to| to.ip() == victim), asked.load(Ordering::Relaxed), began.elapsed())
}

async fn who_has_a_link_and_forges_sources_has_others_sent_little(backend: Backend) {
    type Forge = fn(u16) -> Option<u16>;
    let another_port_now_and_then: Forge = |index| index.is_multiple_of(8).then_some(index);
    let between_two_ports: Forge = |index| (index > 20).then_some(index % 2 + 1);
    let back_and_forth: Forge = |index| (index % 3 > 0).then_some(index % 3);
    for forge in [another_port_now_and_then, between_two_ports, back_and_forth] {
        let (answered, asked, took) = sent_for(&Pair::new(backend), forge).await;
        // Eight at once, then one each two seconds, and one more that QUIC begins for each; beside what it counts.
        let most = (8 + usize::try_from(took.as_secs()).unwrap() / 2 + 1) * 2 * 1200 + 3 * asked;
        assert!(asked > 2000 && answered <= most, "{answered} bytes for {asked} in {took:?}");
    }
}

async fn links_that_move_together_go_on(backend: Backend) {
    if backend == Backend::Quinn {
        return;
    }
    let pair = Pair::new(backend);
    let mut links = Vec::new();
    for _ in 0..20 {
        links.push(pair.linked().await);
    }
    virtual_time(RTT * 5).await;
    pair.wire.move_socket(addr(CLIENT), addr("198.51.100.9:999"));
    let echoes = links.iter().map(|(dialed, accepted)| echo(&**dialed, &**accepted, b"from elsewhere"));
    assert!(join_all(echoes).await.iter().all(Result::is_ok));
    assert_eq!(pair.server.stats().withheld, 0);
}

async fn a_link_that_moves_in_the_middle_of_a_transfer_goes_on(backend: Backend) {
    if backend == Backend::Quinn {
        return;
    }
    for one_at_a_time in [false, true] {
        let pair = Pair::new(backend);
        if one_at_a_time {
            pair.wire.take_one_at_a_time();
        }
        let (dialed, accepted) = pair.linked().await;
        let (much, began) = (vec![7; 1 << 20], Instant::now());
        let moves = async {
            virtual_time(RTT * 5).await;
            pair.wire.move_socket(addr(CLIENT), addr("198.51.100.9:999"));
        };
        let (back, ()) = tokio::join!(echo(&*accepted, &*dialed, &much), moves);
        assert_eq!(back.unwrap(), much);
        assert!(began.elapsed() > RTT * 6 && began.elapsed() < RTT * 100, "{:?}", began.elapsed());
        assert_eq!((accepted.remote(), pair.server.stats().withheld), (addr("198.51.100.9:999"), 0));
    }
}

/// How a link ends whose peer moves to where for so long nothing arrives, or late.
async fn ends_where(backend: Backend, fate: Fate, lasts: Duration) {
    if backend == Backend::Quinn {
        return;
    }
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    let (silent, still_accepted) = pair.linked().await;
    virtual_time(RTT * 5).await;
    let (elsewhere, began) = (addr("198.51.100.9:999"), Instant::now());
    pair.wire.move_socket(addr(CLIENT), elsewhere);
    pair.wire.set_rule(move |sent| match sent.to == elsewhere && sent.at < began + lasts {
        true => fate,
        false => Fate::Arrives,
    });
    let ended = echo(&*dialed, &*accepted, b"from elsewhere").await.err();
    // Where the close may not be sent either, what comes next is answered with a reset.
    assert!(matches!(ended, Some(LinkError::Closed { .. } | LinkError::Reset)), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // One that said nothing meanwhile has not moved yet.
    echo(&*silent, &*still_accepted, b"later").await.unwrap();
    let (dialed, accepted) = pair.linked().await;
    echo(&*dialed, &*accepted, b"again").await.unwrap();
}

async fn a_link_that_hangs_where_it_moved_to_is_closed_and_made_again(backend: Backend) {
    ends_where(backend, Fate::Lost, Duration::from_secs(2)).await;
}

async fn a_link_whose_new_address_answers_too_late_is_closed_and_made_again(backend: Backend) {
    ends_where(backend, Fate::Late(Duration::from_secs(2)), Duration::from_secs(1)).await;
}

async fn a_link_that_somebody_else_moved_is_its_peers_when_it_speaks_again(backend: Backend) {
    if backend == Backend::Quinn {
        return;
    }
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    virtual_time(RTT * 5).await;
    // The client's acknowledgement of what it is sent is held up, and comes from where nobody answers; it says nothing else.
    let moved = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&moved);
    pair.wire.set_rule(move |sent| match sent.from == addr(CLIENT) && counted.fetch_add(1, Ordering::Relaxed) == 0 {
        true => Fate::From(addr("198.51.100.9:999")),
        false => Fate::Arrives,
    });
    let (mut send, _recv) = accepted.open_control().await.unwrap();
    send.write_all(b"a little").await.unwrap();
    virtual_time(Duration::from_mins(1)).await;
    assert_eq!(moved.load(Ordering::Relaxed), 1);
    assert_eq!(accepted.remote(), addr("198.51.100.9:999"));
    echo(&*dialed, &*accepted, b"back").await.unwrap();
    assert_eq!(accepted.remote(), addr(CLIENT));
}
