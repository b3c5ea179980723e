// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's key, rotated.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize as _;

/// Asks for another key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The passphrase of the keystore, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<SecretBytes>,
}

/// Bytes that are not shown, and wiped when dropped; a list of numbers in JSON.
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Copies the bytes of a secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(secret.to_vec())
    }

    /// The bytes, for whoever uses the secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(redacted)")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Schema number, 1.
    pub schema: u32,
    /// Who this node was, 64 hex digits.
    pub old_peer_id: String,
    /// Who it is, 64 hex digits.
    pub peer_id: String,
    /// Fingerprint of both new public keys.
    pub fingerprint: String,
    /// Overlay addresses now, IPv6 first; none while the node is down.
    pub addresses: Vec<IpAddr>,
    /// Every network that was told.
    pub networks: Vec<RotatedIn>,
}

/// What became of it in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedIn {
    /// Name of the network.
    pub network: String,
    /// Name of this node in it, before and after.
    pub name: String,
    /// Members that have heard of it.
    pub told: usize,
    /// Members besides this node.
    pub others: usize,
    /// Whether this node may sign for it, before and after.
    pub admin: bool,
    /// Invites of this node whose codes work no longer.
    pub void_invites: usize,
}
