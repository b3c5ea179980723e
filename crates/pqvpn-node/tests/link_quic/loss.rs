// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loss of the first datagrams: no pattern may hang a handshake.
//!
//! A lost half of the ServerHello dead-locks a post-quantum handshake whose congestion window is too small for the
//! whole flight; `initial_window` is sized against it. Two sweeps:
//! - 81 = 3^4 patterns: each of the server's first four datagrams arrives, is lost, or comes 1.5 round trips late;
//! - 256 = 2^4 x 2^4 patterns: every subset of the first four datagrams of both directions is lost.

use std::time::Duration;

use pqvpn_node::link::{Backend, LinkError};

use crate::pair::{Pair, RTT, SERVER, addr, echo};
use crate::wire::{Fate, Sent};

both_backends!(
    no_fate_of_the_first_server_datagrams_hangs,
    no_loss_of_first_datagrams_hangs,
    three_percent_of_loss_fails_no_handshake,
);

async fn no_fate_of_the_first_server_datagrams_hangs(backend: Backend) {
    let fates = [Fate::Arrives, Fate::Lost, Fate::Late(RTT + RTT / 2)];
    let mut hung = Vec::new();
    for pattern in 0..81_usize {
        let fate = move |sent: &Sent| match sent.index {
            index @ 0..4 if sent.from == addr(SERVER) => fates[pattern / 3_usize.pow(index as u32) % 3],
            _ => Fate::Arrives,
        };
        if let Err(error) = survives(backend, fate).await {
            hung.push((pattern, error));
        }
    }
    assert!(hung.is_empty(), "{} of 81 patterns hang: {hung:?}", hung.len());
}

async fn no_loss_of_first_datagrams_hangs(backend: Backend) {
    let mut hung = Vec::new();
    for pattern in 0..256_usize {
        let fate = move |sent: &Sent| {
            let lost = if sent.from == addr(SERVER) { pattern >> 4 } else { pattern & 15 };
            if sent.index < 4 && lost >> sent.index & 1 == 1 { Fate::Lost } else { Fate::Arrives }
        };
        if let Err(error) = survives(backend, fate).await {
            hung.push((pattern, error));
        }
    }
    assert!(hung.is_empty(), "{} of 256 patterns hang: {hung:?}", hung.len());
}

async fn three_percent_of_loss_fails_no_handshake(backend: Backend) {
    // A fixed sequence of coins (Knuth's MMIX generator), so that a failure repeats.
    let mut coin = 42_u64;
    for handshake in 0..100 {
        coin = coin.wrapping_add(handshake);
        let mut coin = coin;
        let fate = move |_: &Sent| {
            coin = coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (coin >> 33) % 100 < 3 { Fate::Lost } else { Fate::Arrives }
        };
        assert_eq!(survives(backend, fate).await, Ok(()), "handshake {handshake}");
    }
}

/// Makes a link and echoes over it under `fate`, with the configuration nodes use.
async fn survives(backend: Backend, fate: impl FnMut(&Sent) -> Fate + Send + 'static) -> Result<(), LinkError> {
    let pair = Pair::new(backend);
    pair.wire.set_rule(fate);
    let made = async {
        let (dialed, accepted) = tokio::join!(pair.dial(), pair.accepted());
        let (dialed, accepted) = (dialed?, accepted?);
        echo(&*dialed, &*accepted, b"alive").await.map(drop)
    };
    tokio::time::timeout(Duration::from_secs(14), made).await.unwrap_or(Err(LinkError::TimedOut))
}
