// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handshakes from addresses that are proven, and left where the hub waits for an answer to its flight.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::hello::{self, Hello};
use crate::wire::Wire;
use crate::{Failure, Flood};

/// The two bits of a long header that tell its type; all set: a Retry.
const TYPE: u8 = 0x30;
/// Bytes of the integrity tag that ends a Retry.
const TAG: usize = 16;

/// Where each stands.
pub(crate) struct HalfOpen {
    hellos: Vec<Hello>,
    /// Hello by the connection id of who says it.
    by_id: HashMap<Vec<u8>, usize>,
    next: u32,
    begun: u64,
    retried: u64,
    /// Datagrams of the hub's own flights.
    flights: u64,
}

impl HalfOpen {
    pub(crate) fn new(hellos: Vec<Hello>) -> Self {
        let by_id = hellos.iter().enumerate().map(|(number, hello)| (hello.scid.clone(), number)).collect();
        Self { hellos, by_id, next: 0, begun: 0, retried: 0, flights: 0 }
    }
}

impl Flood for HalfOpen {
    fn burst(&mut self, wire: &mut Wire) -> Result<u64, Failure> {
        let hello = &self.hellos[self.next as usize % self.hellos.len()];
        let source = wire.source(self.next);
        self.next = self.next.wrapping_add(1);
        wire.send(source, &hello.datagrams.concat(), Some(hello::DATAGRAM))?;
        self.begun += 1;
        Ok(1)
    }

    fn on_answer(&mut self, wire: &mut Wire, source: u32, answer: &[u8]) -> Result<(), Failure> {
        if answer.first().is_none_or(|first| first & TYPE != TYPE || first & 0x80 == 0) {
            self.flights += 1;
            return Ok(());
        }
        let (to, from) = hello::ids(answer);
        let Some(hello) = self.by_id.get(to).map(|number| &self.hellos[*number]) else { return Ok(()) };
        let token = answer.get(7 + to.len() + from.len()..answer.len().saturating_sub(TAG)).unwrap_or_default();
        let flight = hello.seal(from, token)?;
        let length = flight.first().map_or(0, Vec::len);
        wire.send(source, &flight.concat(), Some(u16::try_from(length)?))?;
        self.retried += 1;
        Ok(())
    }

    fn told(&self) -> Value {
        json!({ "begun": self.begun, "retried": self.retried, "flights": self.flights })
    }
}
