// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links whose peer's address changes, or seems to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pqvpn_node::link::{Backend, LinkError};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::pair::{CLIENT, Pair, RTT, SERVER, addr, echo, virtual_time};
use crate::wire::{Fate, Sent};

both_backends!(
    a_link_outlives_a_change_of_address_where_it_may_roam,
    who_has_a_link_and_forges_sources_has_others_sent_little,
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

async fn who_has_a_link_and_forges_sources_has_others_sent_little(backend: Backend) {
    let pair = Pair::new(backend);
    let (dialed, accepted) = pair.linked().await;
    virtual_time(RTT * 5).await;
    let (victim, began) = (addr("198.51.100.9:0").ip(), Instant::now());
    // Every eighth datagram comes from elsewhere, each time from another port.
    let mut port = 0;
    let mut forged = move |sent: &Sent| {
        if sent.from != addr(CLIENT) || !sent.index.is_multiple_of(8) {
            return Fate::Arrives;
        }
        port += 1;
        Fate::From(SocketAddr::new(victim, port))
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    pair.wire.set_rule(move |sent| {
        let fate = forged(sent);
        if fate != Fate::Arrives {
            counted.fetch_add(sent.bytes.len(), Ordering::Relaxed);
        }
        fate
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
    tokio::join!(ask, listen);
    let (took, asked) = (began.elapsed(), asked.load(Ordering::Relaxed));
    let answered = sent_to(&pair, |to| to.ip() == victim);
    // Eight at once and one a second, beside what QUIC counts.
    let most = (8 + usize::try_from(took.as_secs()).unwrap() + 1) * 1200;
    assert!(asked > 2000 && answered <= most + 3 * asked, "{answered} bytes for {asked} in {took:?}");
    // The link goes on from where its handshake was.
    pair.wire.set_rule(|_| Fate::Arrives);
    let much = vec![7; 100_000];
    assert_eq!(echo(&*accepted, &*dialed, &much).await.unwrap(), much);
}
