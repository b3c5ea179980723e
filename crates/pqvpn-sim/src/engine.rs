// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulated world asks of a node: the surface of `pqvpn_dht::Dht`, small enough for a toy in tests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::Now;
use pqvpn_wire::dht::{Contact, Request, Response};

/// A node as a state machine: inputs by `on_*`, then [`Engine::poll`] until it is empty.
pub trait Engine {
    /// What an operation ends with.
    type Done;

    /// Answers a request.
    fn on_request(
        &mut self,
        now: Now,
        from: &PeerId,
        observed: SocketAddr,
        sender: Option<Arc<Contact>>,
        request: Request,
    ) -> Response;
    /// Takes the answer to a query; it came from `at`.
    fn on_response(
        &mut self,
        now: Now,
        query: u64,
        at: SocketAddr,
        sender: Option<Arc<Contact>>,
        response: Response,
        rtt: Duration,
    );
    /// Takes notice that a query has no answer.
    fn on_failure(&mut self, now: Now, query: u64, failure: Failure);
    /// Takes the result of a proof-of-work evaluation.
    fn on_admission(&mut self, now: Now, contact: &Contact, valid: bool);
    /// When [`Engine::on_timeout`] is due (monotonic).
    fn next_timeout(&self) -> Option<Duration>;
    /// Does what is due.
    fn on_timeout(&mut self, now: Now);
    /// Whether it knows these addresses itself: then they are dialled without a limit.
    fn remembers(&self, _contact: &Contact) -> bool {
        false
    }
    /// The next thing to be done.
    fn poll(&mut self) -> Option<Effect<Self::Done>>;
}

/// Something an engine wants done.
#[derive(Debug)]
pub enum Effect<D> {
    /// Send a request.
    Query {
        /// Names it towards the engine.
        query: u64,
        /// Whom to ask.
        to: Arc<Contact>,
        /// What.
        request: Request,
        /// How long to wait.
        timeout: Duration,
        /// Whether the peer must be reached at the contact's address, not over a link it opened.
        dial: bool,
    },
    /// Evaluate a proof of work.
    Verify(Arc<Contact>),
    /// A get has a first answer.
    Found {
        /// The operation.
        operation: u64,
    },
    /// An operation has ended.
    Done {
        /// The operation.
        operation: u64,
        /// Its end.
        done: D,
    },
    /// The engine put a peer into quarantine.
    Quarantined(PeerId),
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing came in time.
    Timeout,
    /// Somebody else is at that address.
    Unreachable,
    /// This node may not dial that address again so soon: not the peer's fault.
    Local,
}
