// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding a way to a peer: every address of every endpoint, each with a head start over the next (RFC 8305).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use pqvpn_crypto::peer_id::PeerId;
use tokio::time::sleep;

use super::{LinkContext, SessionError};
use crate::link::Connection;

/// Head start of each attempt over the next (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried: whoever answers for the name does not decide how long a dial lasts.
const MAX_ADDRESSES: usize = 8;

type Attempt<'a> = BoxFuture<'a, Result<Box<dyn Connection>, SessionError>>;

/// Dials the peer at every endpoint; the first link that works is kept.
///
/// # Errors
/// The most telling of what went wrong.
pub(super) async fn race(
    context: &LinkContext,
    peer: PeerId,
    endpoints: Vec<String>,
) -> Result<Arc<dyn Connection>, SessionError> {
    let attempts = endpoints.into_iter().map(|endpoint| -> Attempt<'_> { Box::pin(connect(context, peer, endpoint)) });
    first_of(attempts).await.map(Arc::from)
}

async fn connect(context: &LinkContext, peer: PeerId, endpoint: String) -> Result<Box<dyn Connection>, SessionError> {
    let resolved = tokio::net::lookup_host(&endpoint).await.map(|all| all.take(MAX_ADDRESSES).collect::<Vec<_>>());
    let addresses: Vec<SocketAddr> = resolved.map_err(|source| SessionError::Resolve { endpoint, source })?;
    let attempts = addresses.into_iter().map(|address| -> Attempt<'_> {
        Box::pin(async move { Ok(context.endpoint.connect(address, peer, context.known_key(peer)).await?) })
    });
    first_of(attempts).await
}

/// Runs the attempts, staggered; those still under way are dropped when one has worked.
async fn first_of<'a>(attempts: impl Iterator<Item = Attempt<'a>>) -> Result<Box<dyn Connection>, SessionError> {
    let mut running: FuturesUnordered<Attempt<'a>> = attempts
        .enumerate()
        .map(|(position, attempt)| -> Attempt<'a> {
            let head_start = STAGGER.saturating_mul(u32::try_from(position).unwrap_or(u32::MAX));
            Box::pin(async move {
                sleep(head_start).await;
                attempt.await
            })
        })
        .collect();
    let mut worst = SessionError::NoEndpoint;
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(connection) => return Ok(connection),
            // A refusal says more than a silence.
            Err(error) if !worst.is_refusal() => worst = error,
            Err(_) => {}
        }
    }
    Err(worst)
}
