// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two nodes with keys, and the wire between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pqvpn_crypto::identity::{Identity, PublicIdentity};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::{Admission, LinkCrypto, Refusal, Side};
use pqvpn_node::link::{Backend, Connection, Endpoint, LinkConfig, LinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::Wire;

/// Round-trip time of the wire in [`Pair`].
pub(crate) const RTT: Duration = Duration::from_millis(100);

pub(crate) const CLIENT: &str = "192.0.2.1:4001";
pub(crate) const SERVER: &str = "192.0.2.2:4002";

/// Admits everybody, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admits {
    Everybody,
    Nobody,
}

impl Admission for Admits {
    fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
        match self {
            Self::Everybody => Ok(()),
            Self::Nobody => Err(Refusal::UnknownPeer),
        }
    }
}

/// A node's identity and its rule.
pub(crate) struct Party {
    pub(crate) public: PublicIdentity,
    pub(crate) crypto: Arc<LinkCrypto>,
}

impl Party {
    pub(crate) fn new(admits: Admits) -> Self {
        let identity = Arc::new(Identity::generate().unwrap());
        Self { public: identity.public().clone(), crypto: Arc::new(LinkCrypto::new(identity, Arc::new(admits))) }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.public.peer_id()
    }

    pub(crate) fn config(&self) -> LinkConfig {
        LinkConfig::new(Arc::clone(&self.crypto))
    }
}

/// A dialer and a listener on one wire.
pub(crate) struct Pair {
    pub(crate) wire: Wire,
    pub(crate) dialer: Party,
    pub(crate) listener: Party,
    pub(crate) client: Box<dyn Endpoint>,
    pub(crate) server: Box<dyn Endpoint>,
}

impl Pair {
    pub(crate) fn new(backend: Backend) -> Self {
        Self::with(backend, Admits::Everybody, Admits::Everybody, |_| {})
    }

    /// `tune` changes the configuration of both ends.
    pub(crate) fn with(backend: Backend, dialer: Admits, listener: Admits, tune: impl Fn(&mut LinkConfig)) -> Self {
        let (wire, dialer, listener) = (Wire::new(RTT / 2), Party::new(dialer), Party::new(listener));
        let endpoint = |party: &Party, addr| {
            let mut config = party.config();
            tune(&mut config);
            backend.endpoint(wire.socket(addr), config).unwrap()
        };
        let (client, server) = (endpoint(&dialer, CLIENT), endpoint(&listener, SERVER));
        Self { wire, dialer, listener, client, server }
    }

    /// Dials the listener under its right name.
    pub(crate) async fn dial(&self) -> Result<Box<dyn Connection>, LinkError> {
        self.client.connect(addr(SERVER), self.listener.id(), None).await
    }

    pub(crate) async fn accepted(&self) -> Result<Box<dyn Connection>, LinkError> {
        self.server.accept().await.expect("the server is open")
    }

    /// Both ends of a fresh link.
    pub(crate) async fn linked(&self) -> (Box<dyn Connection>, Box<dyn Connection>) {
        let (dialed, accepted) = tokio::join!(self.dial(), self.accepted());
        (dialed.unwrap(), accepted.unwrap())
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Lets virtual time pass; takes no real time in a paused runtime.
pub(crate) async fn virtual_time(passes: Duration) {
    tokio::time::sleep(passes).await;
}

/// Sends `bytes` from `one` to `other` and back over a control stream.
pub(crate) async fn echo(one: &dyn Connection, other: &dyn Connection, bytes: &[u8]) -> Result<Vec<u8>, LinkError> {
    let answer = async {
        let (mut send, mut recv) = other.accept_control().await?;
        drop(tokio::io::copy(&mut recv, &mut send).await);
        drop(send.shutdown().await);
        Ok::<(), LinkError>(())
    };
    let ask = async {
        let (mut send, mut recv) = one.open_control().await?;
        let mut back = Vec::new();
        let (sent, received) = tokio::join!(
            async {
                send.write_all(bytes).await?;
                send.shutdown().await
            },
            recv.read_to_end(&mut back)
        );
        match (sent, received) {
            (Ok(()), Ok(_)) => Ok(back),
            _ => Err(one.closed().await),
        }
    };
    let (back, answered) = tokio::join!(ask, answer);
    answered.and(back)
}
