// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a link is used: what is under way on it, when it was used last, how fast its peer may ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Requests a peer may send over one link in the long run, per second. Each costs a signature check before anything else
/// can be known of it.
const REQUESTS_PER_SECOND: u32 = 20;
/// Requests it may send at once.
const REQUEST_BURST: u32 = 60;

/// Shared by the tasks that use a link and by who decides which link is closed.
#[derive(Debug)]
pub(crate) struct Usage(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    under_way: usize,
    last: Instant,
    /// When the peer's bucket of requests is full again (generic cell rate algorithm).
    busy_until: Instant,
}

/// Something under way on a link, until it is dropped.
#[derive(Debug)]
pub(crate) struct Using(Arc<Usage>);

impl Usage {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { under_way: 0, last: now, busy_until: now })))
    }

    /// Begins to use the link.
    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> Using {
        let mut inner = self.lock();
        inner.under_way += 1;
        inner.last = inner.last.max(now);
        drop(inner);
        Using(Arc::clone(self))
    }

    /// Since when nothing is under way; `None` while something is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let inner = self.lock();
        (inner.under_way == 0).then_some(inner.last)
    }

    /// When it was used last.
    pub(crate) fn last(&self) -> Instant {
        self.lock().last
    }

    /// Takes one request out of the peer's allowance; `false` if it is used up.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        let period = Duration::from_secs(1) / REQUESTS_PER_SECOND;
        let mut inner = self.lock();
        if inner.busy_until > now + period * (REQUEST_BURST - 1) {
            return false;
        }
        inner.busy_until = inner.busy_until.max(now) + period;
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.under_way = inner.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_idle_when_its_last_user_has_gone() {
        let now = Instant::now();
        let usage = Usage::new(now);
        assert_eq!(usage.idle_since(), Some(now));
        let later = now + Duration::from_secs(5);
        let (one, two) = (usage.begin(later), usage.begin(now));
        drop(one);
        assert_eq!(usage.idle_since(), None);
        drop(two);
        assert_eq!(usage.idle_since(), Some(later), "an older use does not make it older");
    }

    #[test]
    fn a_peer_asks_in_bursts_but_not_for_ever() {
        let now = Instant::now();
        let usage = Usage::new(now);
        let asked = (0..1000).filter(|_| usage.may_ask(now)).count();
        assert_eq!(asked, 60);
        let next_second = now + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| usage.may_ask(next_second)).count(), 20);
    }
}
