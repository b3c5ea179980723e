// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a node is in the XOR space, what admitted it there, and where it can be dialled.

use std::net::SocketAddr;

use ciborium::Value;
use pqvpn_crypto::peer_id::PeerId;
use sha2::{Digest, Sha256};

use super::point::Point;
use crate::{WireError, cbor};

/// Most addresses one contact may name.
pub const MAX_ADDRESSES: usize = 4;
/// Most contacts one response may carry.
pub const MAX_CONTACTS: usize = 20;
/// Deepest nesting of a contact.
const DEPTH: usize = 4;

/// The proof of work that admits a PeerID to one position for one week (security.md 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Admission {
    /// The peer's week; weeks of different peers begin at different times.
    pub week: u32,
    /// What was searched for.
    pub nonce: u64,
    /// The proof's output, below 2^256 / difficulty. Claimed: one Argon2id evaluation proves it.
    pub out: [u8; 32],
}

impl Admission {
    /// The admission of a node of which only name and address are known: never below any bound.
    pub const NONE: Self = Self { week: 0, nonce: 0, out: [0xff; 32] };
}

/// A node of the DHT as others name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    peer: PeerId,
    admission: Admission,
    addresses: Vec<SocketAddr>,
    node_id: Point,
}

impl Contact {
    /// Puts a contact together; more than [`MAX_ADDRESSES`] addresses are cut off.
    #[must_use]
    pub fn new(peer: PeerId, admission: Admission, mut addresses: Vec<SocketAddr>) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        let node_id = node_id(&peer, &admission);
        Self { peer, admission, addresses, node_id }
    }

    /// A node of which only name and address are known, as from a bootstrap list: it has no position yet.
    #[must_use]
    pub fn unproven(peer: PeerId, addresses: Vec<SocketAddr>) -> Self {
        Self::new(peer, Admission::NONE, addresses)
    }

    /// Whether it claims a proof of work at all; the claim is not judged here.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.admission.out != Admission::NONE.out
    }

    /// Who it is.
    #[must_use]
    pub const fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// What admits it.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Where to dial it, best first; at most [`MAX_ADDRESSES`].
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its position: SHA-256("pqvpn node" || PeerID || u32 week || out).
    #[must_use]
    pub const fn node_id(&self) -> &Point {
        &self.node_id
    }

    /// Deterministic CBOR: `[peer, week, nonce, out, [address]]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    /// Reads the one encoding of a contact.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let contact = cbor::decode(bytes, DEPTH).and_then(Self::from_value);
        contact.filter(|contact| contact.encode() == bytes).ok_or(WireError::Malformed("contact"))
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Array(vec![
            cbor::bytes(self.peer.as_bytes()),
            self.admission.week.into(),
            self.admission.nonce.into(),
            cbor::bytes(&self.admission.out),
            Value::Array(self.addresses.iter().map(cbor::address).collect()),
        ])
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let [peer, week, nonce, out, addresses] = cbor::array(value)?;
        let admission =
            Admission { week: cbor::integer(&week)?, nonce: cbor::integer(&nonce)?, out: cbor::fixed(out)? };
        let addresses = cbor::list(addresses, MAX_ADDRESSES, cbor::address_from)?;
        Some(Self::new(PeerId::from_bytes(cbor::fixed(peer)?), admission, addresses))
    }
}

fn node_id(peer: &PeerId, admission: &Admission) -> Point {
    let mut hash = Sha256::new();
    hash.update(b"pqvpn node");
    hash.update(peer.as_bytes());
    hash.update(admission.week.to_be_bytes());
    hash.update(admission.out);
    Point::from_bytes(hash.finalize().into())
}
