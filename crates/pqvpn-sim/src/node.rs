// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real engine behind the world's [`Engine`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{
    Dht, Now,
    engine::{Finished, Notice, Output, QueryFailure, QueryId},
};
use pqvpn_wire::dht::{Contact, Request, Response};

use crate::engine::{Effect, Engine, Failure};

impl Engine for Dht {
    type Done = Box<Finished>;

    fn on_request(
        &mut self,
        now: Now,
        from: &PeerId,
        observed: SocketAddr,
        sender: Option<Arc<Contact>>,
        request: Request,
    ) -> Response {
        Self::on_request(self, now, from, observed, sender, request)
    }

    fn on_response(
        &mut self,
        now: Now,
        query: u64,
        at: SocketAddr,
        sender: Option<Arc<Contact>>,
        response: Response,
        rtt: Duration,
    ) {
        Self::on_response(self, now, QueryId(query), at, sender, response, rtt);
    }

    fn on_failure(&mut self, now: Now, query: u64, failure: Failure) {
        let failure = match failure {
            Failure::Timeout => QueryFailure::Timeout,
            Failure::Unreachable => QueryFailure::Unreachable,
            Failure::Local => QueryFailure::Local,
        };
        Self::on_failure(self, now, QueryId(query), failure);
    }

    fn on_admission(&mut self, now: Now, contact: &Contact, valid: bool) {
        Self::on_admission(self, now, contact, valid);
    }

    fn next_timeout(&self) -> Option<Duration> {
        Self::next_timeout(self)
    }

    fn on_timeout(&mut self, now: Now) {
        Self::on_timeout(self, now);
    }

    fn remembers(&self, contact: &Contact) -> bool {
        Self::remembers(self, contact)
    }

    fn poll(&mut self) -> Option<Effect<Self::Done>> {
        loop {
            return Some(match self.poll_output()? {
                Output::Query { id, to, request, timeout, dial } => {
                    Effect::Query { query: id.0, to, request, timeout, dial }
                }
                Output::VerifyAdmission { contact } => Effect::Verify(contact),
                Output::Found { id, .. } => Effect::Found { operation: id.0 },
                Output::Done(done) => Effect::Done { operation: done.id.0, done },
                Output::Notice(Notice::Quarantined { peer, .. }) => Effect::Quarantined(peer),
                // Other notices are for operators.
                Output::Notice(_) | _ => continue,
            });
        }
    }
}
