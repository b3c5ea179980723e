// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a link and a session on it, for each of the things it may be wanted for.

use std::{net::SocketAddr, sync::Arc};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::{PeerSlot, SessionId};
use tokio::time::timeout;

use super::{
    LinkContext, LinkEvent, Made, NEGOTIATION_TIMEOUT, SessionError, Wanted, dial as ways, judge, negotiate_as_dialer,
    serve,
};
use crate::link::Connection;

/// Dials the peer at each address, staggered; the first link that works is kept. Ends with the link.
pub(crate) async fn dial(context: Arc<LinkContext>, slot: PeerSlot, peer: PeerId, endpoints: Vec<String>) {
    let dialing = ways::dial(&context, peer, endpoints);
    match make(&context, slot, peer, dialing, None).await {
        Ok((established, queue, channel)) => serve(Arc::clone(&context), established, queue, channel).await,
        Err(Missed { error, .. }) => context.tell(LinkEvent::DialFailed { slot, error }).await,
    }
}

/// Makes another link and session with the peer at one address, unless it is not wanted any more when its turn comes or it is
/// there. Ends with the link.
pub(crate) async fn dial_at(
    context: Arc<LinkContext>,
    slot: PeerSlot,
    peer: PeerId,
    at: SocketAddr,
    wanted: Arc<Wanted>,
) {
    let dialing = ways::dial_at(&context, peer, at);
    match context.beside.take(&wanted, make(&context, slot, peer, dialing, Some(&wanted))).await {
        Some(Ok((established, queue, channel))) => serve(Arc::clone(&context), established, queue, channel).await,
        // The session there is goes on; its paths say when to try again.
        Some(Err(Missed { error, .. })) => {
            tracing::debug!(peer = %peer.short(), %at, %error, "no link where the path leads");
        }
        None => tracing::trace!(peer = %peer.short(), %at, "no link is wanted any more where the path leads"),
    }
}

/// Makes a new link and session with the peer where the packets of a session go whose link sleeps, when its turn comes and
/// unless that session has gone or was replaced meanwhile. Ends with the link.
pub(crate) async fn wake(
    context: Arc<LinkContext>,
    slot: PeerSlot,
    peer: PeerId,
    at: SocketAddr,
    session: SessionId,
    wanted: Arc<Wanted>,
) {
    let dialing = ways::dial_at(&context, peer, at);
    match context.beside.take(&wanted, make(&context, slot, peer, dialing, Some(&wanted))).await {
        Some(Ok((established, queue, channel))) => serve(Arc::clone(&context), established, queue, channel).await,
        Some(Err(Missed { error, proven })) => context.tell(LinkEvent::WakeFailed { session, error, proven }).await,
        None => tracing::trace!(peer = %peer.short(), %at, "the session to be woken is there no more"),
    }
}

/// Why there is no session, and who says so.
struct Missed {
    error: SessionError,
    /// Whether we say so ourselves, or the peer over a link on which it has proved who it is. What breaks a handshake off
    /// may come from anybody on its path.
    proven: bool,
}

/// Makes a session on the link that `dialing` makes, unless it is not wanted any more by then.
async fn make(
    context: &Arc<LinkContext>,
    slot: PeerSlot,
    peer: PeerId,
    dialing: impl Future<Output = Result<Arc<dyn Connection>, SessionError>>,
    wanted: Option<&Wanted>,
) -> Result<Made, Missed> {
    let proven = |error| Missed { error, proven: true };
    context.door.check_session(peer).map_err(|shut| proven(shut.into()))?;
    let connection = dialing.await.map_err(|error| Missed { error, proven: false })?;
    let negotiation = timeout(NEGOTIATION_TIMEOUT, negotiate_as_dialer(context, Arc::clone(&connection), slot, wanted));
    judge(context, &connection, negotiation.await.unwrap_or(Err(SessionError::Silent))).await.map_err(proven)
}
