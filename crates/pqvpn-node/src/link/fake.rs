// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link and an endpoint for tests of what is built upon them: they lead nowhere.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    schedule::Role,
};

use super::{Connection, ControlRecv, ControlSend, Endpoint, EndpointStats, LinkError};

/// The other end of every such link, as far as keys are asked for.
pub(crate) fn anybody() -> &'static Identity {
    static ANYBODY: OnceLock<Identity> = OnceLock::new();
    ANYBODY.get_or_init(|| Identity::generate().unwrap())
}

/// A link that leads nowhere and knows whether it was closed.
#[derive(Debug)]
pub(crate) struct Fake {
    peer: PeerId,
    from: SocketAddr,
    side: Role,
    closed: Mutex<Option<u32>>,
}

impl Fake {
    pub(crate) fn new(peer: PeerId, from: SocketAddr, side: Role) -> Self {
        Self { peer, from, side, closed: Mutex::default() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.lock().unwrap().is_some()
    }
}

impl Connection for Fake {
    fn peer(&self) -> PeerId {
        self.peer
    }
    fn public_identity(&self) -> &PublicIdentity {
        anybody().public()
    }
    fn remote(&self) -> SocketAddr {
        self.from
    }
    fn side(&self) -> Role {
        self.side
    }
    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        Box::pin(async { Err(LinkError::ClosedByUs) })
    }
    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        Box::pin(async { Err(LinkError::ClosedByUs) })
    }
    fn export(&self, _label: &[u8], _context: &[u8], _out: &mut [u8]) -> Result<(), LinkError> {
        Ok(())
    }
    fn close(&self, code: u32, _reason: &str) {
        *self.closed.lock().unwrap() = Some(code);
    }
    fn closed(&self) -> BoxFuture<'static, LinkError> {
        Box::pin(async { LinkError::ClosedByUs })
    }
    fn rtt(&self) -> Duration {
        Duration::ZERO
    }
    fn handshake_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// An endpoint that reaches nobody and counts how often that was tried.
#[derive(Debug, Default)]
pub(crate) struct Nowhere(pub(crate) AtomicUsize);

impl Endpoint for Nowhere {
    fn connect(
        &self,
        _addr: SocketAddr,
        _peer: PeerId,
        _known: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }

    fn connect_anybody(&self, _addr: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        Box::pin(std::future::pending())
    }

    fn accept(&self) -> BoxFuture<'_, Option<Result<Box<dyn Connection>, LinkError>>> {
        Box::pin(std::future::pending())
    }

    fn close(&self) {}

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        Err(LinkError::ClosedByUs)
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::default()
    }
}
