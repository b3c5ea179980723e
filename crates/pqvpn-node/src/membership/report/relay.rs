// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a relay shows of itself.

use pqvpn_crypto::peer_id::PeerId;

use crate::config::CarrierListen;

/// What this node forwards for others.
#[derive(Debug, Clone, Default)]
pub struct RelayReport {
    /// Bytes a second for all traffic together; 0: only what introduces members to each other.
    pub rate: u64,
    /// The pairs it forwards between now.
    pub pairs: Vec<RelayPairReport>,
    /// What went through since the start, also between pairs that have ended.
    pub total: RelayTotal,
    /// Requests refused because somebody asked for too much.
    pub refused: u64,
    /// Where members come in whose network lets no UDP out.
    pub listen: Vec<CarrierListen>,
    /// Connections there that were closed at once, handshakes that came to nothing, requests that got a page.
    pub visitors: [u64; 3],
}

/// What was forwarded between all pairs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayTotal {
    /// Datagrams sent on.
    pub packets: u64,
    /// Bytes sent on.
    pub bytes: u64,
    /// Datagrams dropped by the limit.
    pub dropped: u64,
}

/// Two members that meet here.
#[derive(Debug, Clone)]
pub struct RelayPairReport {
    /// Name of the network.
    pub network: String,
    /// Who they are and what they are called.
    pub ends: [(PeerId, String); 2],
    /// Datagrams sent on, in both directions.
    pub packets: u64,
    /// Bytes sent on.
    pub bytes: u64,
    /// Datagrams dropped by the limit.
    pub dropped: u64,
}
