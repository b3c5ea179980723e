// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a link to a node of the DHT.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use pqvpn_crypto::{peer_id::PeerId, tls::Refusal};
use tokio::time::timeout;

use super::rpc::Shared;
use crate::link::{Connection, LinkError, race};

/// How a peer is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A door, where somebody we trust named it.
    Door,
    /// Whoever was met there.
    Met,
    /// Whom others name: they may have made it up for the address of somebody else, who is found all the same.
    Named,
}

/// What a dial came to.
pub(super) struct Dialled {
    pub(super) link: Result<Arc<dyn Connection>, String>,
    /// Links to those who answered in the peer's place.
    pub(super) instead: Vec<Arc<dyn Connection>>,
}

/// Dials a peer at each address, staggered; the first link that works is kept.
pub(super) async fn dial(
    shared: Arc<Shared>,
    peer: PeerId,
    addresses: Vec<SocketAddr>,
    how: How,
    limit: Duration,
) -> Dialled {
    let known = lock(&shared.keys).get(&peer);
    let [doors, strangers] = &shared.endpoints;
    let instead = Mutex::new(Vec::new());
    let attempts = addresses.into_iter().map(|address| {
        let instead = &instead;
        let dialled = match how {
            How::Door => doors.connect(address, peer, known.clone()),
            How::Met => strangers.connect(address, peer, known.clone()),
            How::Named => strangers.connect_named(address, peer),
        };
        async move {
            let link: Arc<dyn Connection> = Arc::from(dialled.await?);
            if link.peer() == peer {
                return Ok(link);
            }
            lock(instead).push(link);
            Err(LinkError::RefusedByUs(Refusal::WrongPeerId))
        }
        .boxed()
    });
    let none = LinkError::Local("no address may be dialed now".to_owned());
    let link = match timeout(limit, race(attempts, none, |_worse, _| true)).await {
        Ok(link) => link.map_err(|error| error.to_string()),
        Err(_elapsed) => Err("no answer in time".to_owned()),
    };
    let instead = instead.into_inner().unwrap_or_else(PoisonError::into_inner);
    for link in link.iter().chain(&instead) {
        lock(&shared.keys).remember(link.public_identity());
    }
    Dialled { link, instead }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
