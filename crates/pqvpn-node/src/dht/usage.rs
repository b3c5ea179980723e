// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a link is used: what is under way on it, when it was used last, how fast its peer may ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use crate::allowance::Allowance;

/// Requests a peer may send over one link in the long run, per second. Each costs a signature check before anything else
/// can be known of it.
const REQUESTS_PER_SECOND: u32 = 20;
/// Requests it may send at once.
const REQUEST_BURST: u32 = 60;

/// Requests of several links together: so many a second in the long run, and so many at once.
#[derive(Debug)]
pub(crate) struct Requests {
    period: Duration,
    burst: u32,
    taken: Mutex<Allowance>,
}

impl Requests {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { period: Duration::from_secs(1) / per_second, burst, taken: Mutex::default() }
    }

    /// Whether nothing of it is taken.
    pub(crate) fn is_whole(&self, now: Instant) -> bool {
        self.lock().is_whole(now)
    }

    fn has(&self, now: Instant) -> bool {
        self.lock().has(now, self.burst, self.period)
    }

    fn take(&self, now: Instant) -> bool {
        self.lock().take(now, self.burst, self.period)
    }

    fn lock(&self) -> MutexGuard<'_, Allowance> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shared by the tasks that use a link and by who decides which link is closed.
#[derive(Debug)]
pub(crate) struct Usage {
    inner: Mutex<Inner>,
    /// The peer's own.
    own: Requests,
    /// Those it shares with others.
    shared: OnceLock<Vec<Arc<Requests>>>,
}

#[derive(Debug)]
struct Inner {
    under_way: usize,
    last: Instant,
}

/// Something under way on a link, until it is dropped.
#[derive(Debug)]
pub(crate) struct Using(Arc<Usage>);

impl Usage {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner { under_way: 0, last: now }),
            own: Requests::new(REQUESTS_PER_SECOND, REQUEST_BURST),
            shared: OnceLock::new(),
        })
    }

    /// From now on what the peer asks is taken out of these, too. Only the first call counts.
    pub(crate) fn share(&self, allowances: Vec<Arc<Requests>>) {
        let _shared_before = self.shared.set(allowances);
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

    /// Takes one request out of every allowance of the peer; `false` if one is used up. Of its own one is taken all the
    /// same, so that asking in vain is not free.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        if !self.own.take(now) {
            return false;
        }
        let shared = || self.shared.get().into_iter().flatten();
        shared().all(|allowance| allowance.has(now)) && shared().all(|allowance| allowance.take(now))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
