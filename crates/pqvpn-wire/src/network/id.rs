// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of statements and invites.

use std::{fmt, str::FromStr};

use ciborium::Value;
use data_encoding::HEXLOWER;

use super::NetworkId;
use crate::cbor;

/// SHA-512/256 of a statement's body bytes: the same act, whoever signed it how often.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementId([u8; 32]);

impl StatementId {
    /// Wraps 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The network whose genesis this statement is.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        NetworkId::from_bytes(self.0)
    }

    pub(crate) fn to_value(self) -> Value {
        cbor::bytes(&self.0)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        cbor::fixed(value).map(Self)
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementId({})", HEXLOWER.encode(&self.0[..4]))
    }
}

/// Names an invite; derived from its secret, so a code need not carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

/// Text that is not a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the serial of an invite has 32 digits 0-9 and a-f")]
pub struct SerialError;

impl Serial {
    /// Wraps 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first 8 hex digits, for tables.
    #[must_use]
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }

    pub(crate) fn to_value(self) -> Value {
        cbor::bytes(&self.0)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        cbor::fixed(value).map(Self)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| SerialError)?;
        bytes.try_into().map(Self).map_err(|_| SerialError)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({})", self.short())
    }
}
