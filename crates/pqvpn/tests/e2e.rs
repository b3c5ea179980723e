// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real daemons in network namespaces, joined by veth pairs: what users and operators see, end to end.
//!
//! Needs the rights to make network namespaces and /dev/net/tun; says `SKIP` and why where it has them not.
//! `PQVPN_BIN` names another daemon to test, like one built for release.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says so and ends; measured figures are shown"
)]

#[path = "e2e/confined.rs"]
mod confined;
#[path = "e2e/crashes.rs"]
mod crashes;
#[path = "e2e/discovery.rs"]
mod discovery;
#[path = "e2e/exhaustion.rs"]
mod exhaustion;
#[path = "e2e/garbage.rs"]
mod garbage;
#[path = "e2e/hostile_lan.rs"]
mod hostile_lan;
#[path = "e2e/hygiene.rs"]
mod hygiene;
#[path = "e2e/icmp.rs"]
mod icmp;
#[path = "e2e/idle.rs"]
mod idle;
#[path = "e2e/links.rs"]
mod links;
#[path = "e2e/metrics.rs"]
mod metrics;
#[path = "e2e/mishaps.rs"]
mod mishaps;
#[path = "e2e/networks.rs"]
mod networks;
#[path = "e2e/packets.rs"]
mod packets;
#[path = "e2e/proc.rs"]
mod proc;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/rekey.rs"]
mod rekey;
#[path = "e2e/relay.rs"]
mod relay;
#[path = "e2e/rig.rs"]
mod rig;
#[path = "e2e/rotation.rs"]
mod rotation;
#[path = "e2e/service.rs"]
mod service;
#[path = "e2e/sleep.rs"]
mod sleep;
#[path = "e2e/start.rs"]
mod start;
#[path = "e2e/strangers.rs"]
mod strangers;
#[path = "e2e/traffic.rs"]
mod traffic;
#[path = "e2e/unit.rs"]
mod unit;
