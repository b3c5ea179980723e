// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links between two endpoints, the same tests over both QUIC stacks.
//!
//! All but `loopback` run on a virtual wire in virtual time: a round trip is exact, loss is chosen, nothing waits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Runs each `async fn name(Backend)` of the module once per QUIC stack, in virtual time.
macro_rules! both_backends {
    ($($name:ident),* $(,)?) => {
        both_backends!(@module over_noq, Noq, start_paused = true, $($name),*);
        both_backends!(@module over_quinn, Quinn, start_paused = true, $($name),*);
    };
    (real time: $($name:ident),* $(,)?) => {
        both_backends!(@module over_noq, Noq, flavor = "current_thread", $($name),*);
        both_backends!(@module over_quinn, Quinn, flavor = "current_thread", $($name),*);
    };
    (@module $module:ident, $backend:ident, $key:ident = $value:literal, $($name:ident),*) => {
        mod $module {
            $(
                #[tokio::test($key = $value)]
                async fn $name() {
                    super::$name(pqvpn_node::link::Backend::$backend).await;
                }
            )*
        }
    };
}

#[path = "link_quic/half_open.rs"]
mod half_open;
#[path = "link_quic/handshake.rs"]
mod handshake;
#[path = "link_quic/load.rs"]
mod load;
#[path = "link_quic/loopback.rs"]
mod loopback;
#[path = "link_quic/loss.rs"]
mod loss;
#[path = "link_quic/pair.rs"]
mod pair;
#[path = "link_quic/refusals.rs"]
mod refusals;
#[path = "link_quic/restart.rs"]
mod restart;
#[path = "link_quic/roaming.rs"]
mod roaming;
#[path = "link_quic/strangers.rs"]
mod strangers;
#[path = "link_quic/wire.rs"]
mod wire;
