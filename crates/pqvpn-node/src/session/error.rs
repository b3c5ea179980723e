// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why there is no session, and whether it is worth trying again.

use pqvpn_crypto::tls::Refusal;
use pqvpn_dataplane::InstallError;
use pqvpn_wire::{WireError, control::CloseReason};
use thiserror::Error;

use super::door::Shut;
use crate::{
    dht,
    link::{LinkError, PeerReason},
    membership::RelayError,
    negotiate::NegotiationError,
    sleep::LinkEnd,
};

/// Why there is no session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    /// The link failed or was refused.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The peer ended the session on purpose.
    #[error("the peer ended the session: {}", .0.as_str())]
    Closed(CloseReason),
    /// The peer ended the session for a reason that this node does not know.
    #[error("the peer ended the session (code {0})")]
    Ended(u8),
    /// What the link was for is there without it.
    #[error("not wanted any more")]
    NotWanted,
    /// The two ends did not agree on a session.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The peer sent what no control message is.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A legal message at the wrong time.
    #[error("the peer sent a message out of order")]
    OutOfOrder,
    /// The control stream broke.
    #[error("the control stream ended: {0}")]
    Stream(#[from] std::io::Error),
    /// The data plane did not take the session.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// An endpoint does not resolve.
    #[error("{endpoint} does not resolve: {source}")]
    Resolve {
        /// The endpoint as configured.
        endpoint: String,
        /// The resolver's error.
        source: std::io::Error,
    },
    /// There is no address to dial.
    #[error("no endpoint is known; the peer has to connect to us")]
    NoEndpoint,
    /// No endpoint leads to the peer, and the DHT knows none.
    #[error("no endpoint is known, and the DHT has no record of the peer")]
    NoRecord,
    /// No other member relays to the peer.
    #[error(transparent)]
    NoRelay(#[from] RelayError),
    /// The peer is not configured here.
    #[error("the peer is not one of ours")]
    UnknownPeer,
    /// Whoever dialed us has our own identity.
    #[error("another node runs with this node's identity")]
    Twin,
    /// There are too many links of strangers.
    #[error(transparent)]
    NoPlace(#[from] dht::NoPlace),
    /// This node makes no session with the peer now.
    #[error(transparent)]
    Shut(#[from] Shut),
    /// Negotiation took too long.
    #[error("the peer did not answer on the control stream")]
    Silent,
}

impl SessionError {
    /// What the end of a link for this reason says about its session.
    pub(crate) const fn link_end(&self) -> LinkEnd {
        if matches!(self, Self::Closed(CloseReason::Asleep)) {
            LinkEnd::Asleep
        } else if matches!(self, Self::Link(LinkError::Reset | LinkError::TimedOut)) {
            LinkEnd::Silent
        } else {
            LinkEnd::Over
        }
    }

    /// Whether another node answered where the peer was dialed; where we hold the peer's key, its hash is what does not fit.
    /// That says nothing of the peer: others have its private addresses too, and those it had before.
    #[must_use]
    pub(crate) fn is_somebody_else(&self) -> bool {
        matches!(self, Self::Link(LinkError::RefusedByUs(Refusal::WrongPeerId | Refusal::UnknownCompressedKey)))
    }

    /// Whether one side said no on purpose, so that trying again at once is pointless.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Link(LinkError::RefusedByUs(_)) => !self.is_somebody_else(),
            Self::Link(LinkError::RefusedByPeer(reason)) => *reason != PeerReason::Busy,
            Self::Link(_) => false,
            Self::Negotiation(_) | Self::Wire(_) | Self::OutOfOrder | Self::UnknownPeer | Self::Twin => true,
            Self::Shut(why) => matches!(why, Shut::Quarantined | Shut::Revoked),
            // A link closed so before it became a session: the peer has quarantined us.
            Self::Closed(CloseReason::Ratchet) => true,
            Self::Closed(reason) => matches!(reason, CloseReason::Protocol | CloseReason::NoCommonAead),
            Self::Stream(_) | Self::Install(_) | Self::Resolve { .. } | Self::Silent => false,
            Self::NoEndpoint | Self::NoRecord | Self::NoRelay(_) | Self::NoPlace(_) => false,
            Self::Ended(_) | Self::NotWanted => false,
        }
    }
}
