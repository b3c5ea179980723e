// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request and its answer on one stream of a link, from both ends. The link proves who speaks; nothing is signed
//! again.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    proofs::schnorr::EXPORTER_LABEL,
};
use pqvpn_wire::{
    WireError,
    control::CloseReason,
    dht::NetworkId,
    frame::FRAME_HEADER_LEN,
    network::{
        MAX_NET_MESSAGE, NetRequest, NetResponse, REQUEST_TYPE, RESPONSE_TYPE, decode_request, decode_response,
        encode_request, encode_response, frame,
        message::{MAX_STRANGER_MESSAGE, TooLong},
        parse_frame_header,
    },
};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{event::Event, links::LinkId, members::Members, nearby::Nearby};
use crate::{
    clock,
    dht::{FirstStream, Usage},
    link::{
        Connection, ControlRecv, ControlSend, Endpoint, LinkError,
        request::{self, FrameError, read_frame},
    },
    snapshot::HealthItem,
};

/// How long a peer may take to send a request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take in all: who waits for an admin's word holds its stream open meanwhile.
const SERVE_TIMEOUT: Duration = Duration::from_secs(40);

/// Whether a stream begins like a request of a network's member, or of somebody who wants to become one.
pub(crate) fn is_request(header: &[u8; FRAME_HEADER_LEN]) -> bool {
    request::is_of(header, REQUEST_TYPE)
}

/// What the tasks of the networks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) identity: Arc<Identity>,
    pub(super) own: PeerId,
    pub(super) events: mpsc::Sender<Event>,
    /// Who is a member of any network of this node; replaced as a whole.
    pub(super) members: ArcSwap<Members>,
    /// Ways through other members, and through whom; replaced as a whole.
    pub(super) ways: ArcSwap<BTreeMap<SocketAddr, (PeerId, SocketAddr)>>,
    /// Who announces itself on the local network, and where: hints for a join.
    pub(super) nearby: ArcSwap<Nearby>,
    /// Joins of ours under way: the local network is looked at meanwhile.
    pub(super) joining: AtomicUsize,
    /// What an operator should know of the networks as a whole, also where there is none; replaced as a whole.
    pub(super) health: ArcSwap<Vec<HealthItem>>,
    pub(super) counts: Counts,
}

/// What happened to messages since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes sent and received, of the networks of this node.
    traffic: Mutex<BTreeMap<NetworkId, (u64, u64)>>,
    /// Streams that carried no request of ours.
    pub(super) malformed: AtomicU64,
    /// Requests longer than their sender may make them.
    pub(super) oversize: AtomicU64,
    /// Streams that were too slow.
    pub(super) slow: AtomicU64,
    /// Requests beyond a link's allowance.
    pub(super) hurried: AtomicU64,
    /// Requests of strangers for networks that this node knows, or does not.
    pub(super) strangers: AtomicU64,
    /// Links refused because no place was free.
    pub(super) crowded: AtomicU64,
    /// Calls not made because too many were under way.
    pub(super) busy: AtomicU64,
}

/// Why a request has no valid answer.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// What was sent is no message of ours.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The message would be refused by every receiver.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The link is gone.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream broke off.
    #[error("the stream ended: {0}")]
    Stream(#[from] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Wire(error) => Self::Wire(error),
            FrameError::Stream(error) => Self::Stream(error),
        }
    }
}

/// A request of another node; whoever owns the networks answers it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) link: LinkId,
    pub(super) from: PeerId,
    pub(super) key: PublicIdentity,
    pub(super) remote: SocketAddr,
    pub(super) network: NetworkId,
    pub(super) request: NetRequest,
    /// Keying material of the link, where the request carries a proof.
    pub(super) exporter: [u8; 32],
    pub(super) answer: oneshot::Sender<NetResponse>,
}

impl Shared {
    /// Asks the peer of a link. Ends within `limit`.
    ///
    /// # Errors
    /// [`CallError`].
    pub(super) async fn call(
        &self,
        link: &dyn Connection,
        network: &NetworkId,
        request: &NetRequest,
        limit: Duration,
    ) -> Result<NetResponse, CallError> {
        timeout(limit, self.ask(link, network, request)).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn ask(
        &self,
        link: &dyn Connection,
        network: &NetworkId,
        request: &NetRequest,
    ) -> Result<NetResponse, CallError> {
        let bytes = encode_request(network, request)?;
        let (mut send, mut recv) = link.open_control().await?;
        send.write_all(&frame(REQUEST_TYPE, &bytes)).await?;
        send.shutdown().await?;
        self.counts.traffic(network, bytes.len(), 0);
        let bytes = read_frame(&mut recv, None, parse_frame_header, RESPONSE_TYPE, MAX_NET_MESSAGE).await?;
        self.counts.traffic(network, 0, bytes.len());
        let (of, response) = decode_response(&bytes)?;
        if of != *network {
            return Err(WireError::Malformed("network").into());
        }
        Ok(response)
    }

    /// Answers the peer's requests until the link ends; says whether it broke, or the peer stops: a link that was of no
    /// use any more says nothing of who is at its other end.
    pub(super) async fn serve(
        self: Arc<Self>,
        id: LinkId,
        link: Arc<dyn Connection>,
        usage: Arc<Usage>,
        first: Option<FirstStream>,
    ) -> bool {
        if let Some(FirstStream { send, recv, header }) = first {
            self.take_stream(id, &link, &usage, (send, recv), Some(header));
        }
        // The link ends this loop; how many streams are open at once is the QUIC stack's bound.
        let end = loop {
            match link.accept_control().await {
                Ok(streams) => self.take_stream(id, &link, &usage, streams, None),
                Err(end) => break end,
            }
        };
        let LinkError::Closed { code, .. } = end else { return !matches!(end, LinkError::ClosedByUs) };
        matches!(CloseReason::from_code(code), Some(CloseReason::Shutdown))
    }

    fn take_stream(
        self: &Arc<Self>,
        id: LinkId,
        link: &Arc<dyn Connection>,
        usage: &Arc<Usage>,
        streams: (ControlSend, ControlRecv),
        header: Option<[u8; FRAME_HEADER_LEN]>,
    ) {
        let now = clock::now();
        if !usage.may_ask(now) {
            // Dropping the stream says no.
            count(&self.counts.hurried);
            return;
        }
        let (shared, link, using) = (Arc::clone(self), Arc::clone(link), usage.begin(now));
        tokio::spawn(async move {
            match timeout(SERVE_TIMEOUT, shared.serve_stream(id, &*link, streams, header)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(peer = %link.peer().short(), %error, "request not served");
                }
                Err(_elapsed) => count(&shared.counts.slow),
            }
            drop(using);
        });
    }

    async fn serve_stream(
        &self,
        id: LinkId,
        link: &dyn Connection,
        (mut send, mut recv): (ControlSend, ControlRecv),
        header: Option<[u8; FRAME_HEADER_LEN]>,
    ) -> Result<(), CallError> {
        let from = link.peer();
        let limit = if self.members.load().contains(&from) { MAX_NET_MESSAGE } else { MAX_STRANGER_MESSAGE };
        let reading = read_frame(&mut recv, header, parse_frame_header, REQUEST_TYPE, limit);
        let read = match timeout(READ_TIMEOUT, reading).await {
            Ok(read) => read.map_err(CallError::from),
            Err(_elapsed) => {
                count(&self.counts.slow);
                Err(CallError::Timeout)
            }
        };
        let bytes = read.inspect_err(|error| match error {
            CallError::Wire(WireError::TooLong(_)) => count(&self.counts.oversize),
            CallError::Wire(_) => count(&self.counts.malformed),
            CallError::Link(_) | CallError::Stream(_) | CallError::Timeout | CallError::TooLong(_) => {}
        })?;
        let (network, request) = decode_request(&bytes).inspect_err(|_| count(&self.counts.malformed))?;
        self.counts.traffic(&network, 0, bytes.len());
        let mut exporter = [0; 32];
        if matches!(request, NetRequest::Join(_)) {
            link.export(EXPORTER_LABEL, b"", &mut exporter)?;
        }
        let (answer, answered) = oneshot::channel();
        let (key, remote) = (link.public_identity().clone(), link.remote());
        let asked = Asked { link: id, from, key, remote, network, request, exporter, answer };
        // Where the driver has gone, nobody answers.
        let stopped = || CallError::Stream(io::ErrorKind::NotConnected.into());
        self.events.send(Event::Asked(Box::new(asked))).await.map_err(|_| stopped())?;
        let response = answered.await.map_err(|_| stopped())?;
        let bytes = encode_response(&network, &response)?;
        send.write_all(&frame(RESPONSE_TYPE, &bytes)).await?;
        send.shutdown().await?;
        self.counts.traffic(&network, bytes.len(), 0);
        Ok(())
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, (u64, u64)>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count a network's bytes; those of others are not counted.
    pub(super) fn add_network(&self, network: NetworkId) {
        self.lock().entry(network).or_default();
    }

    /// Stops counting a network's bytes.
    pub(super) fn drop_network(&self, network: &NetworkId) {
        self.lock().remove(network);
    }

    /// Bytes sent and received for a network.
    pub(super) fn of_network(&self, network: &NetworkId) -> (u64, u64) {
        self.lock().get(network).copied().unwrap_or_default()
    }

    fn traffic(&self, network: &NetworkId, tx: usize, rx: usize) {
        if let Some((sent, received)) = self.lock().get_mut(network) {
            *sent += tx as u64;
            *received += rx as u64;
        }
    }

    /// What was refused before it came to a network, in a fixed order.
    pub(super) fn named(&self) -> [(&'static str, u64); 7] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("stream-malformed", read(&self.malformed)),
            ("stream-oversize", read(&self.oversize)),
            ("stream-slow", read(&self.slow)),
            ("stream-hurried", read(&self.hurried)),
            ("stranger", read(&self.strangers)),
            ("crowded", read(&self.crowded)),
            ("busy", read(&self.busy)),
        ]
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
