// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link that the books of carried ways know of; in everything else the link it is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId, schedule::Role};

use crate::link::{Connection, ControlRecv, ControlSend, LinkError};

#[derive(Debug)]
pub(super) struct Watched(pub(super) Arc<dyn Connection>);

impl Connection for Watched {
    fn peer(&self) -> PeerId {
        self.0.peer()
    }

    fn public_identity(&self) -> &PublicIdentity {
        self.0.public_identity()
    }

    fn remote(&self) -> SocketAddr {
        self.0.remote()
    }

    fn side(&self) -> Role {
        self.0.side()
    }

    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        self.0.open_control()
    }

    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        self.0.accept_control()
    }

    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), LinkError> {
        self.0.export(label, context, out)
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.close(code, reason);
    }

    fn closed(&self) -> BoxFuture<'static, LinkError> {
        self.0.closed()
    }

    fn rtt(&self) -> Duration {
        self.0.rtt()
    }

    fn handshake_time(&self) -> Duration {
        self.0.handshake_time()
    }
}
