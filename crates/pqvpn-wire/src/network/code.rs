// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code a person types to join: a network, a secret, and doors to knock at.

use std::{fmt, net::SocketAddr, str::FromStr};

use ciborium::Value;
use pqvpn_crypto::peer_id::PeerId;

use super::{InviteSecret, MAX_DOOR_ADDRESSES, NetworkId, Serial, act::peer_from};
use crate::cbor;

mod text;

/// Longest name of a network in a code, in bytes; a longer one is cut, it is for people only.
pub const MAX_CODE_NAME_LEN: usize = 32;

/// A node to ask, and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Who.
    pub peer: PeerId,
    /// Where, best first; at most 4.
    pub addresses: Vec<SocketAddr>,
}

impl Door {
    /// `[peer, [address]]`
    pub(crate) fn to_value(&self) -> Value {
        let addresses = self.addresses.iter().map(cbor::address).collect();
        Value::Array(vec![cbor::bytes(self.peer.as_bytes()), Value::Array(addresses)])
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let [peer, addresses] = cbor::array(value)?;
        let addresses = cbor::list(addresses, MAX_DOOR_ADDRESSES, cbor::address_from)?;
        Some(Self { peer: peer_from(peer)?, addresses })
    }
}

/// What a code holds; `Display` writes the code, `FromStr` reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Which network.
    pub network: NetworkId,
    /// Its name, for people; at most 32 bytes of a label.
    pub network_name: String,
    /// What proves that the invite is held.
    pub secret: InviteSecret,
    /// Until when it may be used, s since 1970.
    pub not_after_s: u32,
    /// Whom to ask; 1 to 4, with at most 4 addresses each.
    pub doors: Vec<Door>,
}

/// Why text is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// It does not begin as codes do.
    #[error("a code begins with \"pqvpn1-\"")]
    NotACode,
    /// A code of a later kind.
    #[error("the code is of version {0}, which is not spoken here")]
    Version(u8),
    /// A character is wrong.
    #[error("the code has a typing error")]
    Checksum {
        /// The one code that differs in one character, or in two neighbours swapped, and is right.
        suggestion: Option<String>,
    },
    /// The end is missing.
    #[error("the code is not complete")]
    Truncated,
    /// The checksum is right, the content is not.
    #[error("the code is malformed")]
    Malformed,
}

impl Code {
    /// The invite it belongs to.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.secret.serial()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::write(self))
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        text::read(text)
    }
}
