// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proofs of work, away from the runtime: others' are checked in one thread, our own is searched for in another that
//! takes only what the machine has left over.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use pqvpn_crypto::{
    peer_id::PeerId,
    pow::{self, Challenge, Checker, Difficulty},
};
use pqvpn_wire::dht::{Admission, Contact, NetworkId};
use tokio::sync::mpsc;

use super::event::Event;

/// Contacts that may wait to be checked. The DHT itself asks for at most 20 a second, each takes 10 ms.
const QUEUE: usize = 256;
/// How long the checker keeps its 8 MiB after the last check.
const CHECKER_PAUSE: Duration = Duration::from_secs(5);
/// Priorities (nice values): others wait for a check, nobody waits for the search.
const CHECK_NICE: i32 = 5;
const SEARCH_NICE: i32 = 19;

/// The threads, from outside.
#[derive(Debug)]
pub(super) struct Work {
    network: NetworkId,
    difficulty: Difficulty,
    events: mpsc::Sender<Event>,
    checks: Option<SyncSender<Arc<Contact>>>,
    checker: Option<JoinHandle<()>>,
    search: Option<Search>,
}

#[derive(Debug)]
struct Search {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Work {
    /// Nothing runs yet.
    pub(super) const fn new(network: NetworkId, difficulty: u32, events: mpsc::Sender<Event>) -> Self {
        Self { network, difficulty: Difficulty(difficulty), events, checks: None, checker: None, search: None }
    }

    /// Has a contact's proof checked; `false` if too many wait already, or there is no thread.
    pub(super) fn check(&mut self, contact: Arc<Contact>) -> bool {
        #[cfg(feature = "sim")]
        if crate::sim::now().is_some() {
            let valid = is_true(&self.network, self.difficulty, contact.peer(), contact.admission());
            return self.events.try_send(Event::Checked { contact, valid }).is_ok();
        }
        if self.checks.is_none() {
            self.checks = self.start_checker().inspect_err(|error| tracing::warn!(%error, "no thread")).ok();
        }
        self.checks.as_ref().is_some_and(|checks| checks.try_send(contact).is_ok())
    }

    fn start_checker(&mut self) -> io::Result<SyncSender<Arc<Contact>>> {
        let (sender, contacts) = sync_channel::<Arc<Contact>>(QUEUE);
        let (network, difficulty, events) = (self.network, self.difficulty, self.events.clone());
        let check = move || {
            lower_priority(CHECK_NICE);
            let mut checker = Checker::default();
            while let Some(contact) = next(&contacts, &mut checker) {
                let (peer, admission) = (*contact.peer(), *contact.admission());
                let challenge = Challenge { network: *network.as_bytes(), peer, week: admission.week };
                let valid = checker.check(&challenge, difficulty, admission.nonce, &admission.out);
                if events.blocking_send(Event::Checked { contact, valid }).is_err() {
                    return;
                }
            }
        };
        self.checker = Some(Builder::new().name("pqvpn-check".to_owned()).spawn(check)?);
        Ok(sender)
    }

    /// Searches for our own proof, from `start` upwards; a search under way is given up.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn solve(&mut self, peer: PeerId, week: u32, start: u64) -> io::Result<()> {
        self.give_up();
        #[cfg(feature = "sim")]
        if crate::sim::now().is_some() {
            let admission = crate::sim::proof_of(&self.network, self.difficulty, &peer, week);
            drop(self.events.try_send(Event::Solved(admission)));
            return Ok(());
        }
        let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let challenge = Challenge { network: *self.network.as_bytes(), peer, week };
        let (difficulty, events) = (self.difficulty, self.events.clone());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&tried));
        let search = move || {
            lower_priority(SEARCH_NICE);
            let asked = || {
                count.fetch_add(1, Ordering::Relaxed);
                stopped.load(Ordering::Relaxed)
            };
            if let Some((nonce, out)) = pow::solve(&challenge, difficulty, start, &asked) {
                drop(events.blocking_send(Event::Solved(Admission { week, nonce, out })));
            }
        };
        let thread = Builder::new().name("pqvpn-solve".to_owned()).spawn(search)?;
        self.search = Some(Search { stop, tried, thread });
        Ok(())
    }

    /// Evaluations of the search so far.
    pub(super) fn tried(&self) -> u64 {
        self.search.as_ref().map_or(0, |search| search.tried.load(Ordering::Relaxed))
    }

    /// Tells every thread to end; each does within one evaluation, once nobody keeps it from telling its result.
    pub(super) fn stop(&mut self) -> Vec<JoinHandle<()>> {
        self.checks = None;
        let search = self.give_up();
        self.checker.take().into_iter().chain(search).collect()
    }

    fn give_up(&mut self) -> Option<JoinHandle<()>> {
        let search = self.search.take()?;
        search.stop.store(true, Ordering::Relaxed);
        Some(search.thread)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// Whether a proof is true; one evaluation, about 10 ms.
pub(super) fn is_true(network: &NetworkId, difficulty: Difficulty, peer: &PeerId, admission: &Admission) -> bool {
    #[cfg(feature = "sim")]
    if crate::sim::now().is_some() {
        return crate::sim::proof_is_true(network, difficulty, peer, admission);
    }
    let challenge = Challenge { network: *network.as_bytes(), peer: *peer, week: admission.week };
    pow::check(&challenge, difficulty, admission.nonce, &admission.out)
}

/// The next contact to check; a checker that has nothing to do for a while gives its memory back.
fn next(contacts: &Receiver<Arc<Contact>>, checker: &mut Checker) -> Option<Arc<Contact>> {
    match contacts.recv_timeout(CHECKER_PAUSE) {
        Err(RecvTimeoutError::Timeout) => {
            checker.release();
            contacts.recv().ok()
        }
        Ok(contact) => Some(contact),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Linux keeps the nice value per thread.
fn lower_priority(nice: i32) {
    if let Err(error) = rustix::process::nice(nice) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
