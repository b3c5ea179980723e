// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handshakes that addresses which have proven themselves begin and never finish, or spoil: nobody is kept out by them.

use std::time::Duration;

use futures_util::future::join_all;
use pqvpn_node::link::{Backend, Endpoint, LinkConfig};

use crate::pair::{Admits, Pair, Party, RTT, SERVER, addr, virtual_time};
use crate::wire::{Fate, Sent};

both_backends!(handshakes_that_few_addresses_leave_half_open_keep_nobody_out, handshakes_that_fail_keep_nobody_out,);

/// Places in these tests; the smallest number that several addresses fill.
const PLACES: usize = 8;
/// Where the flood comes from: each begins five handshakes.
const FLOODERS: [&str; 4] = ["192.0.2.21:1", "192.0.2.22:1", "192.0.2.23:1", "192.0.2.24:1"];
/// Handshakes of each flooder: what an address may begin at once.
const EACH: usize = 5;
const HONEST: &str = "192.0.2.77:77";

fn few_places(config: &mut LinkConfig) {
    config.gate.retry_threshold = 0;
    config.gate.max_unfinished = PLACES;
}

fn is_flooder(sent: &Sent) -> bool {
    FLOODERS.iter().any(|flooder| addr(flooder) == sent.from || addr(flooder) == sent.to)
}

/// Whether it is a long header of this type (RFC 9000 §17.2).
fn is(sent: &Sent, kind: u8) -> bool {
    sent.bytes[0] & 0xb0 == 0x80 | kind << 4
}

/// Of flooders only first packets, to them only Retry: they do no more than prove their address and begin.
fn half_open(sent: &Sent) -> Fate {
    let passes = !is_flooder(sent) || is(sent, if sent.to == addr(SERVER) { 0 } else { 3 });
    if passes { Fate::Arrives } else { Fate::Lost }
}

struct Flood {
    pair: Pair,
    ends: Vec<Box<dyn Endpoint>>,
}

impl Flood {
    fn new(backend: Backend, admits: Admits) -> Self {
        let pair = Pair::with(backend, Admits::Everybody, admits, few_places);
        let flooder = |at: &&str| {
            let party = Party::new(Admits::Everybody);
            backend.endpoint(pair.wire.socket(at), party.config()).unwrap()
        };
        Self { ends: FLOODERS.iter().map(flooder).collect(), pair }
    }

    /// All of them begin all they may.
    async fn begin(&self) {
        let id = self.pair.listener.id();
        let dials = self.ends.iter().flat_map(|end| (0..EACH).map(move |_| end.connect(addr(SERVER), id, None)));
        drop(join_all(dials).await);
    }

    /// Somebody else dials while the flood goes on.
    async fn honest(&self, backend: Backend) -> Duration {
        let party = Party::new(Admits::Everybody);
        let end = backend.endpoint(self.pair.wire.socket(HONEST), party.config()).unwrap();
        let dialed = end.connect(addr(SERVER), self.pair.listener.id(), None).await.expect("the honest get in");
        dialed.handshake_time()
    }
}

async fn handshakes_that_few_addresses_leave_half_open_keep_nobody_out(backend: Backend) {
    let flood = Flood::new(backend, Admits::Everybody);
    flood.pair.wire.set_rule(half_open);
    let honest = async {
        virtual_time(RTT * 4).await;
        let stats = flood.pair.server.stats();
        assert_eq!(stats.unfinished, PLACES, "{stats:?}");
        assert!(flood.honest(backend).await < RTT * 3);
        let stats = flood.pair.server.stats();
        assert!(stats.displaced >= 1 && stats.open <= PLACES + 1, "who left left no state: {stats:?}");
    };
    tokio::join!(flood.begin(), honest);
    virtual_time(Duration::from_secs(30)).await;
    let stats = flood.pair.server.stats();
    assert_eq!(stats.unfinished, 0, "{stats:?}");
}

async fn handshakes_that_fail_keep_nobody_out(backend: Backend) {
    let flood = Flood::new(backend, Admits::Nobody);
    let honest = async {
        // The last words of those that were refused are repeated for three seconds.
        virtual_time(RTT * 4).await;
        let stats = flood.pair.server.stats();
        assert_eq!(stats.unfinished, PLACES, "{stats:?}");
        // This one is refused too, which it can only be if it was listened to.
        let before = stats.failed;
        assert!(flood.honest(backend).await < RTT * 3);
        virtual_time(RTT).await;
        assert!(flood.pair.server.stats().failed > before);
    };
    tokio::join!(flood.begin(), honest);
}
