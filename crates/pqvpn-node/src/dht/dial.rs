// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a link to a node of the DHT.

use std::{net::SocketAddr, sync::Arc, sync::PoisonError, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use tokio::time::timeout;

use super::rpc::Shared;
use crate::link::{Connection, LinkError, race};

/// Dials a peer at each address, staggered; the first link that works is kept.
///
/// # Errors
/// None works within `limit`; the last reason.
pub(super) async fn dial(
    shared: Arc<Shared>,
    peer: PeerId,
    addresses: Vec<SocketAddr>,
    is_door: bool,
    limit: Duration,
) -> Result<Arc<dyn Connection>, String> {
    let known = shared.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&peer);
    let [doors, strangers] = &shared.endpoints;
    let endpoint = if is_door { doors } else { strangers };
    let attempts = addresses.into_iter().map(|address| endpoint.connect(address, peer, known.clone()));
    let none = LinkError::Local("no address may be dialed now".to_owned());
    let link = match timeout(limit, race(attempts, none, |_worse, _| true)).await {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_elapsed) => return Err("no answer in time".to_owned()),
    };
    shared.keys.lock().unwrap_or_else(PoisonError::into_inner).remember(link.public_identity());
    Ok(Arc::from(link))
}
