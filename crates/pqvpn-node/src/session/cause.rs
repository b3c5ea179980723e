// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a link or a session has ended, and who is told.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::tls::Refusal;
use pqvpn_wire::control::CloseReason;
use tokio::time::timeout;

use super::{LinkContext, LinkEvent, SessionError};
use crate::link::{Connection, LinkError, PeerReason};

impl LinkContext {
    /// Why the link has ended, if it has.
    pub(super) async fn cause_of_end(&self, connection: &Arc<dyn Connection>) -> Option<SessionError> {
        let error = timeout(Duration::from_millis(200), connection.closed()).await.ok()?;
        let LinkError::Closed { code, .. } = &error else { return Some(error.into()) };
        let Some(reason) = CloseReason::from_code(*code) else { return Some(error.into()) };
        Some(self.closed_because(reason))
    }

    /// What it means that the peer ended a link or a session for this reason.
    pub(crate) fn closed_because(&self, reason: CloseReason) -> SessionError {
        match reason {
            // As if it had said so in the handshake: it did not do so only because it takes part in the DHT.
            CloseReason::NotAdmitted | CloseReason::Revoked => {
                self.crypto.refusals().add(Refusal::RefusedByPeer);
                LinkError::RefusedByPeer(PeerReason::NotAccepted).into()
            }
            CloseReason::Busy => LinkError::RefusedByPeer(PeerReason::Busy).into(),
            CloseReason::Idle
            | CloseReason::Shutdown
            | CloseReason::Duplicate
            | CloseReason::Replaced
            | CloseReason::Protocol
            | CloseReason::Ratchet
            | CloseReason::NoCommonAead
            | CloseReason::Asleep
            | _ => SessionError::Closed(reason),
        }
    }

    /// The queue is closed only when the node has stopped; then nobody needs to know.
    pub(crate) async fn tell(&self, event: LinkEvent) {
        let _stopped = self.events.send(event).await;
    }
}
