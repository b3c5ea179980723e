// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why somebody is not let in.

use ciborium::Value;
use thiserror::Error;

use super::{super::name::is_label, kind_of, one};
use crate::cbor;

/// Why a join is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// No such invite.
    #[error("nobody here knows this invite")]
    UnknownInvite,
    /// Its time is over.
    #[error("the invite has expired")]
    Expired {
        /// The clock of whoever refused, ms since 1970.
        now_ms: u64,
    },
    /// Others used it.
    #[error("the invite has been used as often as it may be")]
    UsedUp,
    /// An admin took it back.
    #[error("the invite has been cancelled")]
    Cancelled,
    /// The proof or the signature does not hold.
    #[error("the proof that belongs to the code does not hold")]
    BadProof,
    /// The name wanted is not legal.
    #[error("the name is not legal")]
    BadName,
    /// A member has the name.
    #[error("the name is taken; \"{suggestion}\" is free")]
    NameTaken {
        /// A free name; a label.
        suggestion: String,
    },
    /// The clocks differ too much.
    #[error("the clocks differ too much")]
    ClockSkew {
        /// The clock of whoever refused, ms since 1970.
        now_ms: u64,
    },
    /// This identity has been put out of the network.
    #[error("this identity has been revoked")]
    Revoked,
    /// An admin said no.
    #[error("an admin has said no")]
    Denied,
    /// The network has as many members as it may have.
    #[error("the network is full")]
    Full,
    /// The network has been switched off.
    #[error("the network has been switched off")]
    Disabled,
    /// Not now.
    #[error("too many joins at the moment")]
    Busy,
}

impl JoinRefusal {
    pub(super) fn to_values(&self) -> Vec<Value> {
        match self {
            Self::UnknownInvite => vec![1.into()],
            Self::Expired { now_ms } => vec![2.into(), (*now_ms).into()],
            Self::UsedUp => vec![3.into()],
            Self::Cancelled => vec![4.into()],
            Self::BadProof => vec![5.into()],
            Self::BadName => vec![6.into()],
            Self::NameTaken { suggestion } => vec![7.into(), Value::Text(suggestion.clone())],
            Self::ClockSkew { now_ms } => vec![8.into(), (*now_ms).into()],
            Self::Revoked => vec![9.into()],
            Self::Denied => vec![10.into()],
            Self::Full => vec![11.into()],
            Self::Disabled => vec![12.into()],
            Self::Busy => vec![13.into()],
        }
    }

    pub(super) fn from_values(fields: Vec<Value>) -> Option<Self> {
        let (kind, fields) = kind_of(Value::Array(fields))?;
        let plain = match kind {
            2 => return Some(Self::Expired { now_ms: cbor::integer(&one(fields)?)? }),
            7 => {
                let suggestion = one(fields)?.into_text().ok().filter(|name| is_label(name))?;
                return Some(Self::NameTaken { suggestion });
            }
            8 => return Some(Self::ClockSkew { now_ms: cbor::integer(&one(fields)?)? }),
            1 => Self::UnknownInvite,
            3 => Self::UsedUp,
            4 => Self::Cancelled,
            5 => Self::BadProof,
            6 => Self::BadName,
            9 => Self::Revoked,
            10 => Self::Denied,
            11 => Self::Full,
            12 => Self::Disabled,
            13 => Self::Busy,
            _ => return None,
        };
        fields.is_empty().then_some(plain)
    }
}
