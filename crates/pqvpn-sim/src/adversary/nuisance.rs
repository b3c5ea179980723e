// SPDX-License-Identifier: MIT OR Apache-2.0
//! Colluders that hinder: they drop, delay, slander, flood, or aim other nodes at a victim.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_dht::Now;
use pqvpn_wire::dht::{Contact, MAX_CONTACTS, Point, Request, Response};
use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

use super::{Case, Coven, Deed, Reaction, Strategy, reply};

/// Routes honestly, but keeps no record and gives none: every second request for a value meets silence.
#[derive(Debug, Clone, Copy)]
pub struct Drop;

impl Strategy for Drop {
    fn name(&self) -> &'static str {
        "drop"
    }

    fn answer(&mut self, case: &Case<'_>, _: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        if matches!(case.request, Request::Store { .. } | Request::Beat { .. }) {
            return Reaction::Say(reply(case.request, case.observed, |_| Vec::new()));
        }
        let Request::FindValue { key, .. } = case.request else {
            return Reaction::Say(honest(case.request.clone()));
        };
        if (key.as_bytes()[31] ^ case.from.as_bytes()[0]) & 1 == 0 {
            return Reaction::Silence;
        }
        Reaction::Say(honest(Request::FindNode { target: *key }))
    }
}

/// Answers everything right, but as late as a requester just accepts.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    delay: Duration,
}

impl Default for Slow {
    /// The engine waits 2 s, of which the handshake and the way take some 100 ms.
    fn default() -> Self {
        Self { delay: Duration::from_millis(1_700) }
    }
}

impl Strategy for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn answer(&mut self, case: &Case<'_>, _: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        let answer = match case.request.clone() {
            Request::FindValue { key, .. } => honest(Request::FindNode { target: key }),
            other @ (Request::Ping | _) => honest(other),
        };
        Reaction::Later(answer, self.delay)
    }
}

/// Names honest nodes at addresses where nobody is, so that they seem dead, and others all in one /16 with them.
#[derive(Debug, Clone, Default)]
pub struct Slander {
    told: u32,
}

impl Slander {
    /// An honest contact at a false address: public, plausible, silent.
    fn defame(&mut self, contact: &Contact) -> Arc<Contact> {
        self.told = self.told.wrapping_add(1);
        let [_, a, b, c] = self.told.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let silent = SocketAddr::from(([99, a, b, c.clamp(1, 254)], 7847));
        Arc::new(Contact::new(*contact.peer(), *contact.admission(), vec![silent]))
    }
}

impl Strategy for Slander {
    fn name(&self) -> &'static str {
        "slander"
    }

    fn answer(&mut self, case: &Case<'_>, coven: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        if !wants_contacts(case.request) {
            return Reaction::Say(honest(case.request.clone()));
        }
        Reaction::Say(reply(case.request, case.observed, |target| {
            coven.nearest(target, MAX_CONTACTS).iter().map(|contact| self.defame(contact)).collect()
        }))
    }
}

/// Whether a request is answered with contacts.
const fn wants_contacts(request: &Request) -> bool {
    matches!(request, Request::FindNode { .. } | Request::FindValue { .. } | Request::Exchange)
}

/// Every colluder asks one honest node as fast as it can, and answers honestly itself.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// Requests a second from each colluder.
    pub rate: u32,
}

impl Default for Flood {
    fn default() -> Self {
        Self { rate: 50 }
    }
}

impl Strategy for Flood {
    fn name(&self) -> &'static str {
        "flood"
    }

    fn answer(&mut self, case: &Case<'_>, _: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        Reaction::Say(honest(case.request.clone()))
    }

    fn acts(&self) -> bool {
        true
    }

    fn act(&mut self, _: Now, coven: &Coven, rng: &mut SmallRng) -> Vec<Deed> {
        let Some(victim) = coven.honest().first() else { return Vec::new() };
        let requests = coven.members().iter().flat_map(|member| (0..self.rate).map(move |_| member));
        requests
            .map(|member| Deed {
                from: *member.peer(),
                to: Arc::clone(victim),
                request: Request::FindNode { target: Point::from_bytes(rng.random()) },
            })
            .collect()
    }
}

/// Names colluders at a victim's address, so that everybody dials the victim.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reflector;

impl Strategy for Reflector {
    fn name(&self) -> &'static str {
        "reflector"
    }

    fn answer(&mut self, case: &Case<'_>, coven: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        let aim = |target: &Point| -> Vec<Arc<Contact>> {
            let victims = coven.victims();
            let bait = |contact: &Arc<Contact>| {
                let at = usize::from(contact.peer().as_bytes()[0]);
                let victim = victims.get(at % victims.len().max(1)).copied().unwrap_or(case.observed);
                Arc::new(Contact::new(*contact.peer(), *contact.admission(), vec![victim]))
            };
            coven.nearest_members(target, MAX_CONTACTS).iter().map(bait).collect()
        };
        if !wants_contacts(case.request) {
            return Reaction::Say(honest(case.request.clone()));
        }
        Reaction::Say(reply(case.request, case.observed, aim))
    }

    fn acts(&self) -> bool {
        true
    }

    /// Colluders greet honest nodes so that these come to ask them.
    fn act(&mut self, _: Now, coven: &Coven, rng: &mut SmallRng) -> Vec<Deed> {
        let greet = |member: &Arc<Contact>| {
            let to = coven.honest().choose(rng)?;
            Some(Deed { from: *member.peer(), to: Arc::clone(to), request: Request::Ping })
        };
        coven.members().iter().filter_map(greet).collect()
    }
}
