// SPDX-License-Identifier: MIT OR Apache-2.0
//! One dial up the ladder: rungs begun one after another, and when there is no point in going on.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use pqvpn_crypto::tls::Refusal;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::ladder::{BEFORE_WSS, Plan, Rung};
use crate::link::{LinkError, PeerReason};

/// How long a handshake may take before another is begun beside it.
const INSIST_AFTER: Duration = Duration::from_secs(5);
/// How long what else there is has its turn after somebody refused by UDP: mostly that is the peer, and will not change its
/// mind, but it may have been anybody on the way.
const AFTER_REFUSAL: Duration = BEFORE_WSS.saturating_add(Duration::from_secs(3));
/// And after another than the peer answered, as anybody on the way can: mostly the peer has left the address, and who dials
/// it elsewhere too, or asks the other who it is, is not to wait for long. So nothing else waits for its turn then.
const AFTER_ANOTHER: Duration = Duration::from_secs(2);

/// Tries once more beside an attempt that takes long, for of very many at once the other end forgets some, or that was begun
/// in another network, for QUIC sends again what went nowhere only after pauses that double; the first that works.
///
/// # Errors
/// What the last of them said; or that somebody known answered and refused.
pub(super) async fn insist<T, F: Future<Output = Result<T, LinkError>>>(
    attempt: impl Fn() -> F,
    network_news: &Notify,
) -> Result<T, LinkError> {
    let mut news = pin!(network_news.notified());
    news.as_mut().enable();
    let mut first = pin!(attempt());
    crate::select! {
        made = &mut first => return made,
        () = sleep(INSIST_AFTER) => {}
        () = news => {}
    }
    match select(first, pin!(attempt())).await {
        Either::Left((Err(error), second)) if !says_who_is_there(&error) => second.await,
        Either::Right((Err(error), first)) if !says_who_is_there(&error) => first.await,
        Either::Left((made, _)) | Either::Right((made, _)) => made,
    }
}

/// UDP at once, and after a while what else there is; the first that works.
///
/// # Errors
/// What UDP said, where nothing works; or that the peer itself answered and refused, which no other rung will change.
pub(super) async fn climb<T: Send>(
    plan: Plan,
    udp: impl Future<Output = Result<T, LinkError>> + Send,
    quic: impl Future<Output = Result<T, LinkError>> + Send,
    wss: impl Future<Output = Result<T, LinkError>> + Send,
) -> Result<(Rung, T), LinkError> {
    let is_crowded = AtomicBool::new(false);
    let (hurry, at_once) = watch::channel(false);
    let mut others: FuturesUnordered<BoxFuture<'_, (Rung, Result<T, LinkError>)>> = FuturesUnordered::new();
    let quic = async {
        // It is the same endpoint.
        if is_crowded.load(Ordering::Relaxed) { Err(LinkError::RefusedByPeer(PeerReason::Busy)) } else { quic.await }
    };
    others.extend(plan.quic.map(|pause| after(pause, at_once.clone(), Rung::Quic, quic)));
    others.extend(plan.wss.map(|pause| after(pause, at_once, Rung::Wss, wss)));
    let above = async {
        while let Some((rung, made)) = others.next().await {
            match made {
                Ok(made) => return Some((rung, made)),
                Err(error) => tracing::debug!(carrier = rung.name(), %error, "nothing gets through"),
            }
        }
        None
    };
    match select(pin!(udp), pin!(above)).await {
        Either::Left((Ok(made), _)) => Ok((Rung::Udp, made)),
        Either::Left((Err(error), above)) if is_another(&error) => {
            hurry.send_replace(true);
            timeout(AFTER_ANOTHER, above).await.ok().flatten().ok_or(error)
        }
        Either::Left((Err(error), _)) if says_who_is_there(&error) => Err(error),
        Either::Left((Err(error), above)) if is_refusal(&error) => {
            is_crowded.store(error == LinkError::RefusedByPeer(PeerReason::Busy), Ordering::Relaxed);
            timeout(AFTER_REFUSAL, above).await.ok().flatten().ok_or(error)
        }
        Either::Left((Err(error), above)) => above.await.ok_or(error),
        Either::Right((Some(made), _)) => Ok(made),
        Either::Right((None, udp)) => Ok((Rung::Udp, udp.await?)),
    }
}

fn after<'f, T>(
    pause: Duration,
    mut at_once: watch::Receiver<bool>,
    rung: Rung,
    dial: impl Future<Output = Result<T, LinkError>> + Send + 'f,
) -> BoxFuture<'f, (Rung, Result<T, LinkError>)> {
    async move {
        crate::select! {
            () = sleep(pause) => {}
            _ = at_once.wait_for(|hurry| *hurry) => {}
        }
        (rung, dial.await)
    }
    .boxed()
}

/// Whether somebody answered, and refused.
const fn is_refusal(error: &LinkError) -> bool {
    matches!(error, LinkError::RefusedByUs(_) | LinkError::RefusedByPeer(_) | LinkError::Protocol { .. })
}

/// Whether another key answered than the peer's; where we hold that one's, its hash is what does not fit. With a whole
/// handshake of its own anybody on the way can do so.
const fn is_another(error: &LinkError) -> bool {
    matches!(error, LinkError::RefusedByUs(Refusal::WrongPeerId | Refusal::UnknownCompressedKey))
}

/// Whether it is known who answered, be it to refuse. What comes before the other end has named itself may be of anybody on
/// the way: one datagram of theirs would do.
const fn says_who_is_there(error: &LinkError) -> bool {
    match error {
        LinkError::RefusedByUs(refusal) => matches!(
            refusal,
            Refusal::UnknownPeer | Refusal::NotAdmitted | Refusal::WrongPeerId | Refusal::UnknownCompressedKey
        ),
        LinkError::Closed { .. } | LinkError::ClosedByUs => true,
        LinkError::RefusedByPeer(_)
        | LinkError::Protocol { .. }
        | LinkError::TimedOut
        | LinkError::Reset
        | LinkError::Local(_) => false,
    }
}
