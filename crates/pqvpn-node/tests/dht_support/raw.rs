// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody with an identity and a socket and no good intentions: speaks to nodes stream by stream.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    tls::{Admission, LinkCrypto, Refusal, Side},
};
use pqvpn_node::link::{Backend, Connection, Endpoint, LinkConfig, LinkError, PlainSocket};
use pqvpn_wire::dht::{
    NetworkId, Request, Response,
    envelope::{Expect, Header, REQUEST_TYPE, Sealed, frame, open_response, seal_request},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// How long an answer, or the certainty that none comes, is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The stranger.
pub(crate) struct Raw {
    pub(crate) identity: Arc<Identity>,
    pub(crate) endpoint: Box<dyn Endpoint>,
    pub(crate) network: NetworkId,
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Raw {
    /// A stranger at an address of loopback; 127.x.y.z are as many as one likes.
    pub(crate) fn at(ip: [u8; 4], network: [u8; 32]) -> Self {
        let identity = Arc::new(Identity::generate().unwrap());
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), Arc::new(Everybody)));
        let socket = Arc::new(PlainSocket::bind(SocketAddr::from((ip, 0))).unwrap());
        let endpoint = Backend::Noq.endpoint(socket, LinkConfig::new(crypto)).unwrap();
        Self { identity, endpoint, network: NetworkId::from_bytes(network) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) async fn link(&self, node: PeerId, at: SocketAddr) -> Result<Box<dyn Connection>, LinkError> {
        self.endpoint.connect(at, node, None).await
    }

    /// An honest header of a request to `node`.
    pub(crate) fn header(&self, node: PeerId) -> Header {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let mut nonce = [7; 16];
        nonce[..8].copy_from_slice(&NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes());
        Header { network: self.network, from: self.identity.peer_id(), to: node, ts_ms: now_ms(), nonce, re: None }
    }

    pub(crate) fn ping(&self, header: &Header) -> Sealed {
        seal_request(&self.identity, header, &Request::Ping, None).unwrap()
    }

    /// Sends a sealed request and opens the answer; `None` if there is none.
    pub(crate) async fn ask(&self, link: &dyn Connection, sealed: &Sealed) -> Option<Response> {
        let bytes = exchange(link, &frame(REQUEST_TYPE, &sealed.bytes)).await;
        let message = bytes.get(8..)?;
        let expect =
            Expect { network: self.network, me: self.identity.peer_id(), now_ms: now_ms(), re: Some(sealed.hash) };
        Some(open_response(message, link.public_identity(), &expect).unwrap().body.1)
    }
}

/// Sends bytes on a stream of their own; what comes back until its end, nothing if the stream is refused.
pub(crate) async fn exchange(link: &dyn Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = link.open_control().await.unwrap();
    // Whoever stops listening half-way says so by an error here.
    let _refused = send.write_all(bytes).await;
    let _refused = send.shutdown().await;
    let mut answer = Vec::new();
    let _refused = timeout(PATIENCE, recv.read_to_end(&mut answer)).await.expect("an end comes");
    answer
}
