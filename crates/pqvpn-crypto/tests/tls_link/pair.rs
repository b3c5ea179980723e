// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two rustls connections joined by buffers.

use std::sync::Arc;

use pqvpn_crypto::identity::{Identity, IdentitySeed, PublicIdentity};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::{Admission, LinkCrypto, Refusal, Side};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, Error, ServerConfig, ServerConnection, SideData};

/// Identity of test node `n`.
pub(crate) fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&IdentitySeed::from_bytes(&[n; 64])).unwrap())
}

/// Admits the peers of a list.
#[derive(Debug)]
pub(crate) struct Pinned(pub(crate) Vec<PeerId>);

impl Admission for Pinned {
    fn admit(&self, peer: &PeerId, key: &PublicIdentity, _side: Side) -> Result<(), Refusal> {
        assert_eq!(*peer, key.peer_id());
        if self.0.contains(peer) { Ok(()) } else { Err(Refusal::UnknownPeer) }
    }
}

/// The link profile of node `n`, which admits `peers`.
pub(crate) fn node(n: u8, peers: &[u8]) -> LinkCrypto {
    let peers = peers.iter().map(|peer| identity(*peer).peer_id()).collect();
    LinkCrypto::new(identity(n), Arc::new(Pinned(peers)))
}

pub(crate) fn server_name(peer: &PeerId) -> ServerName<'static> {
    ServerName::try_from(peer.to_server_name()).unwrap()
}

/// Both ends after everything that could be exchanged was.
pub(crate) struct Outcome {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
    pub(crate) client_bytes: usize,
    pub(crate) server_bytes: usize,
    /// The first flight of the client.
    pub(crate) hello: Vec<u8>,
}

impl Outcome {
    pub(crate) fn completed(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    /// Why the client refused, and why the server did.
    pub(crate) fn refusals(&self) -> (Option<Refusal>, Option<Refusal>) {
        assert!(!self.completed(), "the handshake went through");
        (self.client_error.as_ref().and_then(Refusal::of), self.server_error.as_ref().and_then(Refusal::of))
    }

    #[track_caller]
    pub(crate) fn assert_server_refused(&self, refusal: Refusal) {
        assert_eq!(self.refusals().1, Some(refusal), "{:?}", self.server_error);
        assert!(self.server.is_handshaking());
        assert_eq!(self.refusals().0, Some(Refusal::RefusedByPeer), "{:?}", self.client_error);
    }

    #[track_caller]
    pub(crate) fn assert_client_refused(&self, refusal: Refusal) {
        assert_eq!(self.refusals().0, Some(refusal), "{:?}", self.client_error);
        assert!(self.client.is_handshaking());
        assert_eq!(self.refusals().1, Some(Refusal::RefusedByPeer), "{:?}", self.server_error);
    }
}

/// Runs a handshake between node `client` and node `server`, which the client dials by its right name.
pub(crate) fn dial(client: &LinkCrypto, server: &LinkCrypto, server_number: u8) -> Outcome {
    let expected = identity(server_number).peer_id();
    handshake(client.client_config(&expected, None), &expected, server.server_config())
}

/// Runs a handshake until nothing more moves.
pub(crate) fn handshake(client: Arc<ClientConfig>, name: &PeerId, server: Arc<ServerConfig>) -> Outcome {
    let mut out = Outcome {
        client: ClientConnection::new(client, server_name(name)).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
        client_bytes: 0,
        server_bytes: 0,
        hello: Vec::new(),
    };
    loop {
        let up = pending(&mut out.client);
        if out.hello.is_empty() {
            out.hello.clone_from(&up);
        }
        deliver(&up, &mut out.server, &mut out.server_error);
        let down = pending(&mut out.server);
        deliver(&down, &mut out.client, &mut out.client_error);
        out.client_bytes += up.len();
        out.server_bytes += down.len();
        if up.is_empty() && down.is_empty() {
            return out;
        }
    }
}

/// Takes what a connection wants to send.
pub(crate) fn pending<S: SideData>(from: &mut ConnectionCommon<S>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives bytes to a connection and keeps its first error.
pub(crate) fn deliver<S: SideData>(bytes: &[u8], to: &mut ConnectionCommon<S>, error: &mut Option<Error>) {
    let mut rest = bytes;
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        if let Err(refused) = to.process_new_packets() {
            *error = Some(refused);
        }
    }
}
