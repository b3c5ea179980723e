// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a link to a node of the DHT.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use pqvpn_crypto::{peer_id::PeerId, tls::Refusal};
use tokio::time::{Instant, timeout_at};

use super::rpc::Shared;
use crate::link::{Connection, LinkError, staggered};

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

/// How far a dial has come.
pub(super) enum Step {
    /// Somebody answered in the peer's place: a link to it, or that it is another where the peer was asked for by name. This
    /// is told at once: the other addresses may be silent for as long as the dial lasts.
    Instead {
        at: SocketAddr,
        link: Option<Arc<dyn Connection>>,
        rest: Dial,
    },
    Over(Result<Arc<dyn Connection>, String>),
}

/// What became of one address.
enum Outcome {
    Reached(Arc<dyn Connection>),
    Instead(Option<Arc<dyn Connection>>),
    Failed(LinkError),
}

/// A dial of a peer at each of its addresses, staggered; the first link that works is kept.
pub(super) struct Dial {
    shared: Arc<Shared>,
    attempts: FuturesUnordered<BoxFuture<'static, (SocketAddr, Outcome)>>,
    until: Instant,
    /// Why the last attempt failed.
    why: String,
}

impl Dial {
    pub(super) fn new(
        shared: &Arc<Shared>,
        peer: PeerId,
        addresses: Vec<SocketAddr>,
        how: How,
        limit: Duration,
    ) -> Self {
        let attempts = addresses
            .into_iter()
            .map(|at| attempt(Arc::clone(shared), peer, at, how).map(move |one| (at, one)).boxed());
        Self {
            shared: Arc::clone(shared),
            attempts: staggered(attempts),
            until: Instant::now() + limit,
            why: "no address may be dialed now".to_owned(),
        }
    }

    /// Goes on until there is something to tell.
    pub(super) async fn go_on(mut self) -> Step {
        loop {
            let Ok(next) = timeout_at(self.until, self.attempts.next()).await else {
                return Step::Over(Err("no answer in time".to_owned()));
            };
            match next {
                Some((_, Outcome::Reached(link))) => {
                    lock(&self.shared.keys).remember(link.public_identity());
                    return Step::Over(Ok(link));
                }
                Some((at, Outcome::Instead(link))) => {
                    if let Some(link) = &link {
                        lock(&self.shared.keys).remember(link.public_identity());
                    }
                    self.why = LinkError::RefusedByUs(Refusal::WrongPeerId).to_string();
                    return Step::Instead { at, link, rest: self };
                }
                Some((_, Outcome::Failed(error))) => self.why = error.to_string(),
                None => return Step::Over(Err(self.why)),
            }
        }
    }
}

/// Dials a peer at one address.
async fn attempt(shared: Arc<Shared>, peer: PeerId, at: SocketAddr, how: How) -> Outcome {
    let known = lock(&shared.keys).get(&peer);
    let [doors, strangers] = &shared.endpoints;
    // A door is dialled by every carrier there is, and the word of one is not that of who is at the address.
    let is_its_word = how != How::Door && strangers.meets_anybody(at, peer);
    let dialled = match how {
        How::Door => doors.connect(at, peer, known),
        How::Met => strangers.connect(at, peer, known),
        How::Named => strangers.connect_named(at, peer),
    };
    match dialled.await.map(Arc::<dyn Connection>::from) {
        Ok(link) if link.peer() == peer => Outcome::Reached(link),
        Ok(link) => Outcome::Instead(Some(link)),
        Err(LinkError::RefusedByUs(Refusal::WrongPeerId | Refusal::UnknownCompressedKey)) if is_its_word => {
            Outcome::Instead(None)
        }
        Err(error) => Outcome::Failed(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
