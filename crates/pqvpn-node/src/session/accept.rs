// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incoming links: what each is for, its dialer's first frame says.

use std::sync::Arc;

use pqvpn_dataplane::PeerSlot;
use pqvpn_wire::frame::FRAME_HEADER_LEN;
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{
    Channel, LinkContext, LinkEvent, Made, NEGOTIATION_TIMEOUT, SessionError, judge, negotiate_as_listener, serve,
};
use crate::{dht, link::Connection, membership};

/// Takes incoming links until the endpoint closes.
pub(crate) async fn accept_all(context: Arc<LinkContext>) {
    while let Some(incoming) = context.endpoint.accept().await {
        match incoming {
            Ok(connection) => drop(tokio::spawn(accept(Arc::clone(&context), Arc::from(connection)))),
            Err(error) => context.tell(LinkEvent::AcceptFailed { error: error.into() }).await,
        }
    }
}

async fn accept(context: Arc<LinkContext>, connection: Arc<dyn Connection>) {
    let taken = timeout(NEGOTIATION_TIMEOUT, take(&context, Arc::clone(&connection)));
    match judge(&context, &connection, taken.await.unwrap_or(Err(SessionError::Silent))).await {
        Ok(Some((established, queue, channel))) => serve(context, established, queue, channel).await,
        Ok(None) => {}
        Err(SessionError::Twin) => context.tell(LinkEvent::Twin { remote: connection.remote() }).await,
        Err(error) => context.tell(LinkEvent::AcceptFailed { error }).await,
    }
}

/// A link that nobody knows the purpose of yet: it takes a place among the links of strangers.
enum Guest {
    Dht(dht::Stranger),
    Network(membership::Guest),
}

/// Makes a session on an accepted link, or hands the link over to the DHT or to the networks.
async fn take(context: &LinkContext, connection: Arc<dyn Connection>) -> Result<Option<Made>, SessionError> {
    let peer = connection.peer();
    if peer == context.own {
        // Whoever dials its own address, which others say is somebody else's, finds itself.
        if context.is_own_link(connection.as_ref()) {
            tracing::debug!(remote = %connection.remote(), "a link from ourselves");
            return Ok(None);
        }
        return Err(SessionError::Twin);
    }
    let slot = context.slots.of(&peer);
    if !context.slots.strangers_welcome() {
        let slot = slot.ok_or(SessionError::UnknownPeer)?;
        let _place = context.door.enter(peer)?;
        let channel = Channel::new(connection.accept_control().await?);
        return negotiate_as_listener(context, connection, slot, channel).await.map(Some);
    }
    context.door.check(peer)?;
    let guest = match &context.dht {
        Some(dht) => Guest::Dht(dht.enter(&connection, slot.is_some())?),
        None => Guest::Network(context.networks.enter(&connection, slot.is_some())?),
    };
    let (send, mut recv) = connection.accept_control().await?;
    let mut header = [0; FRAME_HEADER_LEN];
    recv.read_exact(&mut header).await?;
    if dht::is_request(&header) {
        let (Some(dht), Guest::Dht(guest)) = (&context.dht, guest) else { return Err(SessionError::UnknownPeer) };
        dht.take(connection, guest, dht::FirstStream { send, recv, header }).await;
        return Ok(None);
    }
    if membership::is_request(&header) {
        let guest = match guest {
            Guest::Network(guest) => guest,
            Guest::Dht(_) => context.networks.enter(&connection, slot.is_some())?,
        };
        context.networks.take(connection, guest, dht::FirstStream { send, recv, header }).await;
        return Ok(None);
    }
    session(context, connection, slot, guest, Channel::after(&header, (send, recv))).await.map(Some)
}

/// Makes a session on a link that is for one.
async fn session(
    context: &LinkContext,
    connection: Arc<dyn Connection>,
    slot: Option<PeerSlot>,
    guest: Guest,
    channel: Channel,
) -> Result<Made, SessionError> {
    let peer = connection.peer();
    let place = context.door.enter(peer);
    // Of one who was revoked the reason is that, not that it is unknown.
    let _place = place?;
    let slot = slot.ok_or(SessionError::UnknownPeer)?;
    drop(guest);
    negotiate_as_listener(context, connection, slot, channel).await
}
