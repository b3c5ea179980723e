// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the lookup.

mod figures;
mod liars;
mod network;
mod rules;
mod values;

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Distance, Point, Token};

use super::{Ask, Goal, Lookup, LookupConfig, LookupId, LookupReply, Step};
use crate::Now;
use network::{START, contact, near, record};

fn after(ms: u64) -> Now {
    Now { mono: START.mono + Duration::from_millis(ms), ..START }
}

fn lookup_of(goal: Goal, target: Point, seeds: Vec<Arc<Contact>>, config: LookupConfig) -> Lookup {
    Lookup::new(START, LookupId(7), target, goal, seeds, config, 1)
}

/// Everything the lookup asks before it waits.
fn asks(lookup: &mut Lookup, now: Now) -> Vec<(Arc<Contact>, Ask)> {
    let mut asked = Vec::new();
    while let Step::Ask { to, ask, .. } = lookup.next(now) {
        asked.push((to, ask));
    }
    asked
}

fn names(contacts: Vec<Arc<Contact>>) -> LookupReply {
    LookupReply { contacts, record: None, token: Some(Token([1; 16])) }
}

/// Contacts within ever smaller shares of the space around a point, 2^-1, 2^-2, ...
fn ladder(target: &Point, steps: i32, seed: u64) -> Vec<Arc<Contact>> {
    let rung = |step: i32| {
        let within = Distance::from_fraction(0.5_f64.powi(step));
        near(target, &within, 1, seed.wrapping_mul(1000).wrapping_add(u64::try_from(step).unwrap_or(0))).remove(0)
    };
    (1..=steps).map(rung).collect()
}
