// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link: one QUIC control connection between two nodes, behind two small traits with two back ends.
//!
//! A link carries the handshake (X25519 + ML-KEM-1024, Ed25519 + ML-DSA-87, all inside TLS 1.3), the exporter the data
//! plane's keys come from, and a few reliable control streams. It carries no user packet and, once idle, sends nothing.
//!
//! ```text
//!  Endpoint::connect ──► handshake ──► Connection ──► open_control / accept_control ──► frames
//!  Endpoint::accept  ──► Gate ─► handshake ─┘   └──► export (session keys)
//!                          │ under load: Retry (stateless) or silence
//! ```
//!
//! The client of a TLS 1.3 handshake is done before the server has judged it. A dialled [`Connection`] whose peer does
//! not admit us therefore exists for one round trip and then ends with [`LinkError::RefusedByPeer`]; the first answer on
//! the control stream is the proof of admission.
//!
//! An endpoint and its connections run as tasks on the runtime that created it. Use a current-thread runtime: the bulk
//! of noq's stream path is slower, and has failed, on several workers.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::schedule::Role;
use tokio::io::{AsyncRead, AsyncWrite};

mod config;
mod drivers;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod gate;
mod guest;
mod initial;
mod noq_backend;
mod places;
mod plain;
mod quinn_backend;
mod race;
pub(crate) mod request;
mod roaming;
mod socket;
mod unproven;

pub use config::{Behind, LinkConfig, TransportKnobs};
pub use drivers::{alive, tasks};
pub use error::{LinkError, PeerReason};
pub use gate::{Gate, GateConfig, Verdict};
pub use guest::GuestSocket;
pub use places::{Place, Places, Room, Standing};
pub use plain::PlainSocket;
pub(crate) use race::{race, staggered};
pub use socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, Writable};

/// The sending half of a control stream.
pub type ControlSend = Pin<Box<dyn AsyncWrite + Send>>;

/// The receiving half of a control stream.
pub type ControlRecv = Pin<Box<dyn AsyncRead + Send>>;

/// Which QUIC implementation carries the links of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// noq: the default, because it has multipath and NAT traversal.
    #[default]
    Noq,
    /// quinn: the second source, kept working by the same tests.
    Quinn,
}

impl Backend {
    /// Starts an endpoint on `socket`; call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Local`] if the configuration is not usable or the socket has no address.
    pub fn endpoint(self, socket: Arc<dyn LinkSocket>, config: LinkConfig) -> Result<Box<dyn Endpoint>, LinkError> {
        match self {
            Self::Noq => noq_backend::endpoint(socket, config),
            Self::Quinn => quinn_backend::endpoint(socket, config),
        }
    }
}

/// One socket's worth of links: dials peers and accepts them. Dropping it closes every link.
pub trait Endpoint: Send + Sync + fmt::Debug {
    /// Dials `peer` at `addr`. `known` is the peer's key where the caller holds it: 2.6 kB less on the wire.
    ///
    /// The handshake needs one round trip; the peer's verdict on *us* comes later, see the module text.
    fn connect(
        &self,
        addr: SocketAddr,
        peer: PeerId,
        known: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>>;

    /// Dials whoever is at `addr`; the link says who that is, and nothing that it is who was meant.
    fn connect_anybody(&self, addr: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>>;

    /// Dials whoever is at `addr`, where strangers say that `peer` is; where what gets there leads to one peer alone, `peer`.
    fn connect_named(
        &self,
        addr: SocketAddr,
        _peer: PeerId,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.connect_anybody(addr)
    }

    /// Whether [`Self::connect_named`] meets whoever is at `addr` now, and a refusal of it is the word of who is there.
    fn meets_anybody(&self, _addr: SocketAddr, _peer: PeerId) -> bool {
        true
    }

    /// Waits for the next finished or failed incoming handshake; `None` once the endpoint is closed.
    ///
    /// Failed handshakes are dropped (and counted) when nobody waits for them.
    fn accept(&self) -> BoxFuture<'_, Option<Result<Box<dyn Connection>, LinkError>>>;

    /// Closes every link with code 0 and accepts no more. Idempotent.
    fn close(&self);

    /// Waits until the peers have been told of every closed link, as far as they can be told.
    fn drained(&self) -> BoxFuture<'_, ()>;

    /// Returns the socket's local address.
    ///
    /// # Errors
    /// [`LinkError::Local`] if the socket is gone.
    fn local_addr(&self) -> Result<SocketAddr, LinkError>;

    /// Returns the counters so far.
    fn stats(&self) -> EndpointStats;
}

/// An authenticated link to one peer. Dropping it closes it with [`CLOSE_DROPPED`].
pub trait Connection: Send + Sync + fmt::Debug {
    /// The peer's id, as proven by the handshake.
    fn peer(&self) -> PeerId;

    /// The peer's public keys, as proven by the handshake.
    fn public_identity(&self) -> &PublicIdentity;

    /// The peer's present UDP address; changes when the peer migrates.
    fn remote(&self) -> SocketAddr;

    /// Our role: the dialer is the initiator.
    fn side(&self) -> Role;

    /// Opens a control stream. The peer sees it with its first byte, so write before waiting for an answer.
    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>>;

    /// Waits for a control stream opened by the peer.
    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>>;

    /// Fills `out` with keying material bound to this handshake (RFC 8446 §7.5); equal on both ends.
    ///
    /// # Errors
    /// [`LinkError::Local`] if `out` is longer than TLS can expand.
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), LinkError>;

    /// Closes the link at once: what was not yet acknowledged may be lost. The peer sees [`LinkError::Closed`].
    fn close(&self, code: u32, reason: &str);

    /// Waits for the end of the link and returns its cause. Does not keep the link alive.
    fn closed(&self) -> BoxFuture<'static, LinkError>;

    /// The smoothed round-trip time of the link.
    fn rtt(&self) -> Duration;

    /// How long our side of the handshake took.
    fn handshake_time(&self) -> Duration;
}

/// Close code of a link whose last handle was dropped without [`Connection::close`], or that hangs where it moved to.
pub const CLOSE_DROPPED: u32 = 0x5051_0001;

/// Counters of an endpoint since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointStats {
    /// Handshakes we began as the dialer.
    pub dialed: u64,
    /// Handshakes of others that succeeded.
    pub accepted: u64,
    /// Handshakes of others that failed or were refused.
    pub failed: u64,
    /// First packets answered with a Retry instead of state.
    pub retried: u64,
    /// First packets answered with silence.
    pub ignored: u64,
    /// Unfinished handshakes that had to leave their place to others.
    pub displaced: u64,
    /// Sends cut short or held back: an unproven address would have got more than three times what it sent, or links move, or
    /// answer probes, too often.
    pub withheld: u64,
    /// Incoming handshakes under way now.
    pub unfinished: usize,
    /// Links and handshakes that hold state now.
    pub open: usize,
    /// Datagrams the socket would not send.
    pub send_errors: u64,
    /// Datagrams that look like QUIC but belong to no link of ours; always 0 with the quinn back end.
    pub strangers: u64,
}
