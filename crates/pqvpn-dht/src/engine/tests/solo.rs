// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node against a world that a test makes up answer by answer.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Point, Request, Response};

use super::world::World;
use crate::{Dht, Finished, Now, Output, QueryFailure};

/// What the world says to a question; `None`: nothing, the query times out. The contact is the answerer's own word.
pub(super) type Answer = Option<(Option<Arc<Contact>>, Response)>;

pub(super) struct Solo {
    pub(super) node: Dht,
    pub(super) now: Now,
    pub(super) asked: Vec<(Arc<Contact>, Request, bool)>,
    pub(super) to_prove: Vec<Arc<Contact>>,
    pub(super) finished: Vec<Finished>,
    /// Contacts whose proof of work is false.
    pub(super) forged: Vec<Arc<Contact>>,
    /// Where peers answer, if not at the first address they were asked at.
    pub(super) at: BTreeMap<PeerId, SocketAddr>,
}

impl Solo {
    /// The first node of a small network, which knows all others.
    pub(super) fn joined(seed: u64) -> (Self, World) {
        Self::first_of(World::joined(seed, 24))
    }

    /// An admitted node that knows nobody.
    pub(super) fn alone(seed: u64) -> (Self, World) {
        let mut world = World::new(seed);
        world.add();
        Self::first_of(world)
    }

    fn first_of(mut world: World) -> (Self, World) {
        let solo = Self {
            node: world.nodes.remove(0),
            now: world.now,
            asked: Vec::new(),
            to_prove: Vec::new(),
            finished: Vec::new(),
            forged: Vec::new(),
            at: BTreeMap::new(),
        };
        (solo, world)
    }

    /// Does what is due and takes all outputs.
    pub(super) fn drain(&mut self, answer: &mut dyn FnMut(&Arc<Contact>, &Request) -> Answer) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Query { id, to, request, dial, .. } => {
                    self.asked.push((Arc::clone(&to), request.clone(), dial));
                    match answer(&to, &request) {
                        Some((sender, response)) => {
                            let at = self.at.get(to.peer()).copied().unwrap_or(to.addresses()[0]);
                            self.node.on_response(self.now, id, at, sender, response, Duration::from_millis(20));
                        }
                        None => self.node.on_failure(self.now, id, QueryFailure::Timeout),
                    }
                }
                Output::VerifyAdmission { contact } => {
                    self.to_prove.push(Arc::clone(&contact));
                    let valid = !self.forged.contains(&contact);
                    self.node.on_admission(self.now, &contact, valid);
                }
                Output::Done(finished) => self.finished.push(*finished),
                Output::Found { .. } | Output::Notice(_) => {}
            }
        }
    }

    /// Lets time pass, timer by timer.
    pub(super) fn run(&mut self, period: Duration, answer: &mut dyn FnMut(&Arc<Contact>, &Request) -> Answer) {
        let end = self.now.mono + period;
        self.drain(answer);
        while let Some(due) = self.node.next_timeout().filter(|due| *due <= end) {
            self.advance(due.max(self.now.mono));
            self.node.on_timeout(self.now);
            self.drain(answer);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Duration) {
        let passed = u64::try_from((to - self.now.mono).as_millis()).expect("short");
        self.now = Now { mono: to, unix_ms: self.now.unix_ms + passed };
    }
}

/// Nobody knows anybody.
pub(super) fn nobody(to: &Arc<Contact>) -> Answer {
    Some((Some(Arc::clone(to)), Response::Nodes { contacts: Vec::new(), token: None }))
}

/// A contact of the same peer as `real`, at a position of its own choice, so near to `target`, with the proof it claims for it.
pub(super) fn claimed_near(real: &Contact, target: &Point, within: f64) -> Arc<Contact> {
    let mut admission = *real.admission();
    for try_out in 0_u64.. {
        let (head, _) = admission.out.split_at_mut(8);
        head.copy_from_slice(&try_out.to_be_bytes());
        let contact = Contact::new(*real.peer(), admission, real.addresses().to_vec());
        let distance = contact.node_id().distance(target);
        if (Distance::from_fraction(0.9 * within)..Distance::from_fraction(within)).contains(&distance) {
            return Arc::new(contact);
        }
    }
    unreachable!("2^64 tries are enough")
}
