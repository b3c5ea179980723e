// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding a way to a peer: every address of every endpoint, each with a head start over the next (RFC 8305), and where
//! those do not lead to it, where it was met or announces itself, and what its record in the DHT says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use pqvpn_crypto::peer_id::PeerId;
use tokio::time::{sleep, timeout};

use super::{LinkContext, SessionError};
use crate::{
    dht::Order,
    link::{Connection, race},
};

/// Addresses of one name that are tried: whoever answers for the name does not decide how long a dial lasts.
const MAX_ADDRESSES: usize = 8;
/// Head start of what is configured over a lookup, which costs others something too.
const BEFORE_LOOKUP: Duration = Duration::from_millis(750);
/// How long other ways may take after one was refused.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);
/// Head start of a direct link over one by a relay.
const BEFORE_RELAY: Duration = Duration::from_millis(200);

type Attempt<'a> = BoxFuture<'a, Result<Box<dyn Connection>, SessionError>>;

/// Dials the peer at every endpoint; the first link that works is kept.
///
/// # Errors
/// The most telling of what went wrong.
pub(super) async fn dial(
    context: &LinkContext,
    peer: PeerId,
    endpoints: Vec<String>,
) -> Result<Arc<dyn Connection>, SessionError> {
    // What is near answers in this time; what does not is behind a router, and nobody waits for it.
    let relay_after = if endpoints.is_empty() { Duration::ZERO } else { BEFORE_RELAY };
    let head_start = if endpoints.is_empty() { Duration::ZERO } else { BEFORE_LOOKUP };
    let configured = endpoints.into_iter().map(|endpoint| -> Attempt<'_> { connect(context, peer, endpoint).boxed() });
    let by_relay = context.networks.is_member(&peer).then(|| -> Attempt<'_> {
        async move {
            sleep(relay_after).await;
            relayed(context, peer).await
        }
        .boxed()
    });
    let looked_up = context.dht.is_some().then(|| -> Attempt<'_> {
        async move {
            sleep(head_start).await;
            discover(context, peer).await
        }
        .boxed()
    });
    let direct = race(configured.chain(looked_up), SessionError::NoEndpoint, says_more);
    let ways: Vec<Attempt<'_>> = std::iter::once(direct.boxed()).chain(by_relay).collect();
    // Each has its own head start inside.
    at_once(ways).await.map(Arc::from)
}

/// Dials the peer at one address.
///
/// # Errors
/// What went wrong.
pub(super) async fn dial_at(
    context: &LinkContext,
    peer: PeerId,
    at: SocketAddr,
) -> Result<Arc<dyn Connection>, SessionError> {
    Ok(Arc::from(context.endpoint.connect(at, peer, context.known_key(peer)).await?))
}

/// The first of several ways that leads there; else the more telling failure, soon after one is a refusal.
async fn at_once<T>(ways: Vec<BoxFuture<'_, Result<T, SessionError>>>) -> Result<T, SessionError> {
    let mut running: FuturesUnordered<_> = ways.into_iter().collect();
    let mut worst = SessionError::NoEndpoint;
    if let Some(reached) = next_of(&mut running, &mut worst, true).await {
        return Ok(reached);
    }
    // What breaks a handshake off may come from anybody on its path.
    let reached = timeout(AFTER_REFUSAL, next_of(&mut running, &mut worst, false)).await;
    reached.ok().flatten().ok_or(worst)
}

/// The first that leads there; none when all have failed, or one was refused and `heeds` is set.
async fn next_of<T>(
    running: &mut FuturesUnordered<BoxFuture<'_, Result<T, SessionError>>>,
    worst: &mut SessionError,
    heeds: bool,
) -> Option<T> {
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(reached) => return Some(reached),
            Err(error) if says_more(worst, &error) => *worst = error,
            Err(_) => {}
        }
        if heeds && worst.is_refusal() {
            return None;
        }
    }
    None
}

/// Dials the peer through another member of a network that both are in.
async fn relayed(context: &LinkContext, peer: PeerId) -> Result<Box<dyn Connection>, SessionError> {
    let way = context.networks.relay(peer).await.map_err(SessionError::NoRelay)?;
    tracing::debug!(peer = %peer.short(), via = ?context.networks.via(way), "dialing by a relay");
    Ok(context.endpoint.connect(way, peer, context.known_key(peer)).await?)
}

/// A refusal says more than that somebody else was there, that more than a silence, and that there is no record or relay
/// less than anything else.
fn says_more(so_far: &SessionError, new: &SessionError) -> bool {
    if so_far.is_refusal() || so_far.is_somebody_else() {
        return !so_far.is_refusal() && new.is_refusal();
    }
    let nothing_yet = matches!(so_far, SessionError::NoEndpoint);
    nothing_yet || !matches!(new, SessionError::NoRecord | SessionError::NoRelay(_))
}

async fn connect(context: &LinkContext, peer: PeerId, endpoint: String) -> Result<Box<dyn Connection>, SessionError> {
    let resolved = tokio::net::lookup_host(&endpoint).await.map(|all| all.take(MAX_ADDRESSES).collect::<Vec<_>>());
    let addresses = resolved.map_err(|source| SessionError::Resolve { endpoint, source })?;
    connect_any(context, peer, addresses).await
}

/// Dials the peer where it was met or announces itself, with a head start over its record; the link proves who is there.
async fn discover(context: &LinkContext, peer: PeerId) -> Result<Box<dyn Connection>, SessionError> {
    let dht = context.dht.as_ref().ok_or(SessionError::NoEndpoint)?;
    let known = dht.known(peer).await;
    let mut ways: Vec<Attempt<'_>> = Vec::new();
    if !known.is_empty() {
        ways.push(connect_each(context, peer, known.clone()).boxed());
    }
    ways.push(look_up(context, peer).boxed());
    let found = match race(ways.into_iter(), SessionError::NoEndpoint, says_more).await {
        Err(error) if !error.is_refusal() => {
            // It may have announced itself while it was looked for.
            let mut late = dht.known(peer).await;
            late.retain(|endpoint| !known.contains(endpoint));
            if late.is_empty() { Err(error) } else { connect_each(context, peer, late).await }
        }
        found => found,
    };
    if found.is_ok() {
        // Should it not be told, the lookup ends by itself.
        dht.order(Order::Reached(peer));
    }
    found
}

async fn connect_each(
    context: &LinkContext,
    peer: PeerId,
    endpoints: Vec<String>,
) -> Result<Box<dyn Connection>, SessionError> {
    let attempts = endpoints.into_iter().map(|endpoint| -> Attempt<'_> { connect(context, peer, endpoint).boxed() });
    race(attempts, SessionError::NoEndpoint, says_more).await
}

async fn look_up(context: &LinkContext, peer: PeerId) -> Result<Box<dyn Connection>, SessionError> {
    let dht = context.dht.as_ref().ok_or(SessionError::NoEndpoint)?;
    let addresses = dht.find(peer).await;
    if addresses.is_empty() {
        return Err(SessionError::NoRecord);
    }
    tracing::debug!(peer = %peer.short(), ?addresses, "found in the DHT");
    connect_any(context, peer, addresses).await
}

async fn connect_any(
    context: &LinkContext,
    peer: PeerId,
    addresses: Vec<SocketAddr>,
) -> Result<Box<dyn Connection>, SessionError> {
    let attempts = addresses.into_iter().map(|address| -> Attempt<'_> {
        async move { Ok(context.endpoint.connect(address, peer, context.known_key(peer)).await?) }.boxed()
    });
    race(attempts, SessionError::NoEndpoint, says_more).await
}

#[cfg(test)]
mod tests {
    use pqvpn_crypto::tls::Refusal;

    use super::*;
    use crate::link::LinkError;

    fn after(ms: u64, outcome: Result<u8, SessionError>) -> BoxFuture<'static, Result<u8, SessionError>> {
        async move {
            sleep(Duration::from_millis(ms)).await;
            outcome
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_soon_though_another_way_hangs() {
        let begun = tokio::time::Instant::now();
        let refused = at_once(vec![after(10, Err(SessionError::UnknownPeer)), after(9000, Ok(7))]).await;
        assert!(matches!(refused, Err(SessionError::UnknownPeer)));
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Whoever refused may not be the peer: a way that leads there in time counts.
        let other = at_once(vec![after(10, Err(SessionError::UnknownPeer)), after(400, Ok(7))]).await;
        assert!(matches!(other, Ok(7)));
        // A silence is no refusal.
        let late = at_once(vec![after(10, Err(SessionError::Silent)), after(9000, Ok(7))]).await;
        assert!(matches!(late, Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_members_private_address_here_does_not_end_the_way_by_a_relay() {
        for refusal in [Refusal::WrongPeerId, Refusal::UnknownCompressedKey] {
            let somebody_else = || Err(SessionError::Link(LinkError::RefusedByUs(refusal)));
            let reached = at_once(vec![after(10, somebody_else()), after(900, Ok(7))]).await;
            assert!(matches!(reached, Ok(7)), "{reached:?}");
            // It says more than a silence, and less than the peer itself.
            let told = at_once(vec![after(10, somebody_else()), after(900, Err(SessionError::Silent))]).await;
            assert!(matches!(told, Err(SessionError::Link(LinkError::RefusedByUs(_)))), "{told:?}");
            let told = at_once(vec![after(10, somebody_else()), after(900, Err(SessionError::UnknownPeer))]).await;
            assert!(matches!(told, Err(SessionError::UnknownPeer)), "{told:?}");
        }
    }
}
