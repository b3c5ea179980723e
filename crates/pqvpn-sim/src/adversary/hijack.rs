// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hijacked lookups: whoever asks a colluder is led to colluders only, and never to a value.

use pqvpn_wire::dht::{MAX_CONTACTS, Request, Response};

use super::{Case, Coven, Reaction, Strategy, reply};

/// Answers with the colluders nearest to the target, acknowledges stores and forgets them.
///
/// The attack of S/Kademlia's experiment and of the tables of security.md 7.3.
#[derive(Debug, Clone, Copy)]
pub struct Hijack;

impl Strategy for Hijack {
    fn name(&self) -> &'static str {
        "hijack"
    }

    fn answer(&mut self, case: &Case<'_>, coven: &Coven, _: &mut dyn FnMut(Request) -> Response) -> Reaction {
        Reaction::Say(reply(case.request, case.observed, |target| coven.nearest_members(target, MAX_CONTACTS)))
    }
}
