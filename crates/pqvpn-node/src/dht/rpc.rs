// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request and its answer on one stream of a link, from both ends: signed, bound to both peers, never twice.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_dht::{
    QueryFailure,
    address::{Class, class_of},
    counters::{Attack, Counters},
};
use pqvpn_wire::{
    WireError,
    dht::{
        Contact, NetworkId, Request, Response,
        envelope::{
            EnvelopeError, Expect, Header, MAX_MESSAGE, REQUEST_TYPE, RESPONSE_TYPE, ReplayError, ReplayGuard,
            SealError, frame, open_request, open_response, parse_frame_header, seal_request, seal_response,
        },
    },
    frame::FRAME_HEADER_LEN,
};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    event::{Event, FirstStream},
    keys::KnownKeys,
    observed::without_ways,
    report::RpcReport,
    usage::Usage,
};
use crate::{
    clock, entropy,
    link::{
        Connection, ControlRecv, ControlSend, Endpoint, LinkError,
        request::{self, FrameError, read_frame},
    },
    path::is_relayed,
};

/// How long a peer may take to send a request, and to take the answer.
const SERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a stream begins like a request of the DHT, and not like a session.
pub(crate) fn is_request(header: &[u8; FRAME_HEADER_LEN]) -> bool {
    request::is_of(header, REQUEST_TYPE)
}

/// What the tasks of the DHT share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Dials the doors, and whom other nodes name.
    pub(super) endpoints: [Arc<dyn Endpoint>; 2],
    pub(super) identity: Arc<Identity>,
    pub(super) own: PeerId,
    pub(super) network: NetworkId,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) keys: Mutex<KnownKeys>,
    pub(super) counts: Counts,
    /// How we can be dialed, once we serve.
    contact: Mutex<Option<Arc<Contact>>>,
    replay: Mutex<ReplayGuard>,
}

/// What happened to messages since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    /// Streams that carried no frame of ours.
    frames: AtomicU64,
    /// Streams that were too slow.
    slow: AtomicU64,
    /// Requests beyond a link's allowance.
    hurried: AtomicU64,
    /// Messages refused, by reason.
    attacks: Mutex<Counters>,
}

/// Why a request has no valid answer.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// We could not sign it, or it is too long.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The link is gone.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream broke off.
    #[error("the stream ended: {0}")]
    Stream(#[from] io::Error),
    /// The answer is no frame.
    #[error(transparent)]
    Frame(#[from] WireError),
    /// The answer's envelope does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer cannot be dialed now.
    #[error("no link to the peer: {0}")]
    Unreachable(String),
    /// This node has no room for it.
    #[error("too many requests are under way")]
    Busy,
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Wire(error) => Self::Frame(error),
            FrameError::Stream(error) => Self::Stream(error),
        }
    }
}

impl CallError {
    pub(super) const fn failure(&self) -> QueryFailure {
        match self {
            Self::Seal(_) | Self::Busy => QueryFailure::Local,
            Self::Link(_) | Self::Stream(_) | Self::Unreachable(_) => QueryFailure::Unreachable,
            Self::Frame(_) => QueryFailure::Malformed,
            Self::Envelope(EnvelopeError::Signature) => QueryFailure::BadSignature,
            Self::Envelope(_) => QueryFailure::Malformed,
            Self::Timeout => QueryFailure::Timeout,
        }
    }
}

/// A valid answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sender: Option<Arc<Contact>>,
    pub(super) response: Response,
    pub(super) rtt: Duration,
}

/// A valid request of another node; whoever owns the DHT answers it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) from: PeerId,
    pub(super) observed: SocketAddr,
    pub(super) sender: Option<Arc<Contact>>,
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Response>,
}

impl Shared {
    pub(super) fn new(
        endpoints: [Arc<dyn Endpoint>; 2],
        identity: Arc<Identity>,
        network: NetworkId,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let own = identity.peer_id();
        Self {
            endpoints,
            identity,
            own,
            network,
            events,
            keys: Mutex::default(),
            counts: Counts::default(),
            contact: Mutex::default(),
            replay: Mutex::default(),
        }
    }

    pub(super) fn set_contact(&self, contact: Option<Arc<Contact>>) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = contact;
    }

    /// How the peer at `remote` may dial us: addresses of our site are of no use elsewhere, and nobody's business. Where the
    /// end of a way is nobody knows.
    fn contact_for(&self, remote: SocketAddr) -> Option<Contact> {
        let contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        if class_of(remote.ip()) != Class::Public && !is_relayed(remote) {
            return Some(Contact::clone(&contact));
        }
        let public = contact.addresses().iter().copied().filter(|at| class_of(at.ip()) == Class::Public);
        let public: Vec<SocketAddr> = public.collect();
        (!public.is_empty()).then(|| Contact::new(self.own, *contact.admission(), public))
    }

    fn header(&self, to: PeerId, re: Option<[u8; 32]>) -> Header {
        let ts_ms = clock::unix_millis();
        Header { network: self.network, from: self.own, to, ts_ms, nonce: entropy::bytes(), re }
    }

    fn expect(&self, re: Option<[u8; 32]>) -> Expect {
        Expect { network: self.network, me: self.own, now_ms: clock::unix_millis(), re }
    }

    /// Asks the peer of a link, and judges the answer. Ends within `limit`.
    ///
    /// # Errors
    /// [`CallError`].
    pub(super) async fn call(
        &self,
        link: &dyn Connection,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        timeout(limit, self.ask(link, request)).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn ask(&self, link: &dyn Connection, request: &Request) -> Result<Answer, CallError> {
        let sender = self.contact_for(link.remote());
        let sealed = seal_request(&self.identity, &self.header(link.peer(), None), request, sender.as_ref())?;
        let started = clock::now();
        let (mut send, mut recv) = link.open_control().await?;
        send.write_all(&frame(REQUEST_TYPE, &sealed.bytes)).await?;
        add(&self.counts.tx_bytes, sealed.bytes.len());
        send.shutdown().await?;
        let bytes = read_frame(&mut recv, None, parse_frame_header, RESPONSE_TYPE, MAX_MESSAGE).await?;
        let rtt = started.elapsed();
        add(&self.counts.rx_bytes, bytes.len());
        let opened = open_response(&bytes, link.public_identity(), &self.expect(Some(sealed.hash)))
            .inspect_err(|error| self.counts.attack(attack_of(*error)))?;
        let (sender, response) = opened.body;
        Ok(Answer { sender: sender.map(Arc::new), response, rtt })
    }

    /// Serves the peer of a link until the link ends. `first` is a stream whose frame header was read already.
    pub(super) async fn serve(
        self: Arc<Self>,
        link: Arc<dyn Connection>,
        usage: Arc<Usage>,
        first: Option<FirstStream>,
    ) {
        if let Some(FirstStream { send, recv, header }) = first {
            self.take_stream(&link, &usage, send, recv, Some(header));
        }
        // The link ends this loop; how many streams are open at once is the QUIC stack's bound.
        while let Ok((send, recv)) = link.accept_control().await {
            self.take_stream(&link, &usage, send, recv, None);
        }
    }

    fn take_stream(
        self: &Arc<Self>,
        link: &Arc<dyn Connection>,
        usage: &Arc<Usage>,
        send: ControlSend,
        recv: ControlRecv,
        header: Option<[u8; FRAME_HEADER_LEN]>,
    ) {
        let now = clock::now();
        if !usage.may_ask(now) {
            // Dropping the stream says no; an answer would have to be signed.
            count(&self.counts.hurried);
            count(&self.counts.refused);
            return;
        }
        let (shared, link, using) = (Arc::clone(self), Arc::clone(link), usage.begin(now));
        tokio::spawn(async move {
            let outcome = timeout(SERVE_TIMEOUT, shared.serve_stream(&*link, send, recv, header)).await;
            match outcome {
                Ok(Ok(())) => count(&shared.counts.served),
                Ok(Err(error)) => {
                    count(&shared.counts.refused);
                    tracing::debug!(peer = %link.peer().short(), %error, "request refused");
                }
                Err(_elapsed) => {
                    count(&shared.counts.refused);
                    count(&shared.counts.slow);
                }
            }
            drop(using);
        });
    }

    async fn serve_stream(
        &self,
        link: &dyn Connection,
        mut send: ControlSend,
        mut recv: ControlRecv,
        header: Option<[u8; FRAME_HEADER_LEN]>,
    ) -> Result<(), ServeError> {
        let read = read_frame(&mut recv, header, parse_frame_header, REQUEST_TYPE, MAX_MESSAGE).await;
        let bytes = read.map_err(CallError::from).inspect_err(|error| {
            if matches!(error, CallError::Frame(_)) {
                count(&self.counts.frames);
            }
        })?;
        add(&self.counts.rx_bytes, bytes.len());
        let opened = open_request(&bytes, link.public_identity(), &self.expect(None))
            .inspect_err(|error| self.counts.attack(attack_of(*error)))?;
        self.only_once(&opened.header)?;
        let (sender, request) = opened.body;
        let (answer, answered) = oneshot::channel();
        let (from, observed) = (link.peer(), link.remote());
        let asked = Asked { from, observed, sender: sender.map(Arc::new), request, answer };
        self.events.send(Event::Asked(Box::new(asked))).await.map_err(|_stopped| ServeError::Stopped)?;
        let response = answered.await.map_err(|_stopped| ServeError::Stopped)?;
        let response = without_ways(response, observed);
        let sender = self.contact_for(observed);
        let header = self.header(from, Some(opened.hash));
        let sealed = seal_response(&self.identity, &header, &response, sender.as_ref())?;
        add(&self.counts.tx_bytes, sealed.bytes.len());
        send.write_all(&frame(RESPONSE_TYPE, &sealed.bytes)).await?;
        Ok(send.shutdown().await?)
    }

    fn only_once(&self, header: &Header) -> Result<(), ServeError> {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = replay.check(clock::unix_millis(), &header.from, &header.nonce);
        drop(replay);
        checked.map_err(|error| {
            let replayed = error == ReplayError::Replayed;
            self.counts.attack(if replayed { Attack::EnvelopeReplayed } else { Attack::ReplayGuardFull });
            ServeError::Replay(error)
        })
    }
}

/// Why a request of another node was not answered.
#[derive(Debug, Error)]
enum ServeError {
    #[error(transparent)]
    Read(#[from] CallError),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Replay(ReplayError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the stream ended: {0}")]
    Stream(#[from] io::Error),
    #[error("the node stops")]
    Stopped,
}

impl Counts {
    fn attack(&self, attack: Attack) {
        self.attacks.lock().unwrap_or_else(PoisonError::into_inner).count(attack);
    }

    /// Bytes of messages sent and received.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.tx_bytes.load(Ordering::Relaxed), self.rx_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn report(&self) -> RpcReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RpcReport {
            sent: read(&self.sent),
            answered: read(&self.answered),
            failed: read(&self.failed),
            served: read(&self.served),
            refused: read(&self.refused),
        }
    }

    /// What the DHT refused and what was refused before it came so far, in a fixed order.
    pub(super) fn named(&self, dht: &Counters) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let before = self.attacks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> =
            dht.iter().map(|(attack, count)| (attack.name(), count.saturating_add(before.get(attack)))).collect();
        named.extend([
            ("stream-no-frame", read(&self.frames)),
            ("stream-slow", read(&self.slow)),
            ("stream-hurried", read(&self.hurried)),
        ]);
        named
    }
}

/// Under which name a refused envelope is counted.
const fn attack_of(error: EnvelopeError) -> Attack {
    match error {
        EnvelopeError::TooLong => Attack::EnvelopeTooLong,
        EnvelopeError::Version => Attack::EnvelopeVersion,
        EnvelopeError::Network => Attack::EnvelopeNetwork,
        EnvelopeError::NotFromLink => Attack::EnvelopeNotFromLink,
        EnvelopeError::Misdirected => Attack::EnvelopeMisdirected,
        EnvelopeError::Expired => Attack::EnvelopeExpired,
        EnvelopeError::Future => Attack::EnvelopeFuture,
        EnvelopeError::WrongAnswer => Attack::EnvelopeWrongAnswer,
        EnvelopeError::Signature => Attack::EnvelopeBadSignature,
        EnvelopeError::Sender => Attack::ForeignContact,
        EnvelopeError::Malformed | _ => Attack::EnvelopeMalformed,
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
