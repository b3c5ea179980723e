// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contacts that went silent: tried again now and then, so that two halves of a split network find each other again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::Contact;

use super::bucket::head;

/// Most contacts remembered.
pub(super) const MAX_LOST: usize = 64;
const FIRST_RETRY: Duration = Duration::from_secs(15);
const LAST_RETRY: Duration = Duration::from_secs(30 * 60);
/// Given up after a day: by then the address has likely changed, and the record tells the new one.
const GIVEN_UP: Duration = Duration::from_secs(24 * 3600);
/// Losses within this time count as one event.
const EVENT: Duration = Duration::from_secs(15 * 60);
const MAX_TIMES: usize = 256;

#[derive(Debug)]
struct Missing {
    contact: Arc<Contact>,
    since: Duration,
    retry_at: Duration,
    pause: Duration,
}

/// The lost contacts of one table.
#[derive(Debug, Default)]
pub(super) struct Lost {
    missing: Vec<Missing>,
    times: VecDeque<Duration>,
    dropped: u64,
}

impl Lost {
    pub(super) const fn len(&self) -> usize {
        self.missing.len()
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn note(&mut self, now: Duration, contact: Arc<Contact>) {
        while self.times.len() >= MAX_TIMES || self.times.front().is_some_and(|time| *time + EVENT < now) {
            self.times.pop_front();
        }
        self.times.push_back(now);
        self.forget(contact.peer());
        if self.missing.len() >= MAX_LOST {
            // Those tried longest in vain are the least likely to come back.
            let oldest = self.missing.iter().enumerate().max_by_key(|(at, one)| (one.pause, usize::MAX - at));
            if let Some((at, _)) = oldest {
                self.missing.remove(at);
                self.dropped += 1;
            }
        }
        let retry_at = now + spread(FIRST_RETRY, &contact);
        self.missing.push(Missing { contact, since: now, retry_at, pause: FIRST_RETRY });
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.missing.retain(|one| one.contact.peer() != peer);
    }

    /// Whether more than a fifth of the table went silent lately: then the fault is rather ours, and retries stay quick.
    fn mass_loss(&self, now: Duration, left: usize) -> bool {
        let recent = self.times.iter().filter(|time| **time + EVENT >= now).count();
        recent * 5 > left + recent
    }

    /// The contact whose retry is due longest.
    pub(super) fn next(&mut self, now: Duration, left: usize) -> Option<Arc<Contact>> {
        self.missing.retain(|one| now.saturating_sub(one.since) < GIVEN_UP);
        let quick = self.mass_loss(now, left);
        let due = self.missing.iter_mut().filter(|one| one.retry_at <= now).min_by_key(|one| one.retry_at)?;
        if !quick {
            due.pause = (due.pause * 2).min(LAST_RETRY);
        }
        due.retry_at = now + spread(due.pause, &due.contact);
        Some(Arc::clone(&due.contact))
    }

    pub(super) fn contains(&self, contact: &Contact) -> bool {
        self.missing.iter().any(|one| *one.contact == *contact)
    }

    /// One came back: the others may be back as well, and are due at once.
    pub(super) fn hurry(&mut self, now: Duration) {
        for one in &mut self.missing {
            one.retry_at = one.retry_at.min(now);
        }
    }

    /// When the next retry is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.missing.iter().map(|one| one.retry_at).min()
    }
}

/// 75 to 125 % of a pause, by the peer's name: what was lost together is not dialled together.
fn spread(pause: Duration, contact: &Contact) -> Duration {
    let share = u32::try_from(head(contact.peer().as_bytes()) % 64).unwrap_or(0);
    pause * (96 + share) / 128
}
