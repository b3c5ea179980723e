// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that are made beside others: few at a time, and none that is not wanted any more when its turn comes. After a short
//! outage a thousand peers are in doubt at once, and most of them answer again soon.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pqvpn_dataplane::SessionId;
use tokio::{sync::Semaphore, time::timeout};

/// Links that are begun at a time, and how long a turn lasts: what takes longer goes on without it.
const AT_A_TIME: usize = 16;
const TAKES: Duration = Duration::from_secs(3);

/// Two sessions that one end dials with a peer are confirmed this far apart, so that both ends see them in the same order. No
/// shorter than the silence after which a link beside one is begun.
const CONFIRMS_APART: Duration = Duration::from_secs(2);

/// Whether links beside the one there is are wanted, as the state task knows; shared with those that make them.
#[derive(Debug)]
pub(crate) struct Wanted {
    still: AtomicBool,
    /// The one there is will do.
    answered: AtomicBool,
    waits: AtomicBool,
}

impl Wanted {
    pub(crate) const fn new() -> Self {
        Self { still: AtomicBool::new(true), answered: AtomicBool::new(false), waits: AtomicBool::new(false) }
    }

    /// One more waits for its turn; not if one does already.
    pub(crate) fn wait(&self) -> bool {
        !self.waits.swap(true, Ordering::Relaxed)
    }

    fn is_still(&self) -> bool {
        self.still.load(Ordering::Relaxed)
    }

    /// Whether one that is finished by now would take the place of one that does.
    pub(super) fn is_too_late(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Nobody wants more of them; `answered`: because the one there is does. Where it has gone, what is under way is welcome.
    pub(crate) fn end(&self, answered: bool) {
        self.answered.store(answered, Ordering::Relaxed);
        self.still.store(false, Ordering::Relaxed);
    }
}

/// When a session that this end dialed was last confirmed, and which.
#[derive(Debug, Default)]
pub(super) struct Confirmed(Option<(Instant, Option<SessionId>)>);

impl Confirmed {
    /// Whether another one may be confirmed; then it is.
    pub(super) fn may_again(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|(last, _)| now.saturating_duration_since(last) >= CONFIRMS_APART);
        if may {
            self.0 = Some((now, None));
        }
        may
    }

    /// It is this one.
    pub(super) fn is(&mut self, id: SessionId) {
        if let Some((_, confirmed)) = &mut self.0 {
            *confirmed = Some(id);
        }
    }

    /// A session is over, or did not come about: if it was the one, another may come in its place.
    pub(super) fn is_over(&mut self, id: SessionId) {
        if self.0.is_some_and(|(_, confirmed)| confirmed == Some(id)) {
            self.0 = None;
        }
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_A_TIME))
    }
}

impl Turns {
    /// Waits for a turn and makes a link; `None`: it was not wanted any more.
    pub(super) async fn take<T>(&self, wanted: &Wanted, making: impl Future<Output = T>) -> Option<T> {
        let turn = self.0.acquire().await;
        wanted.waits.store(false, Ordering::Relaxed);
        if turn.is_err() || !wanted.is_still() {
            return None;
        }
        let mut making = pin!(making);
        let in_time = timeout(TAKES, &mut making).await;
        drop(turn);
        Some(match in_time {
            Ok(made) => made,
            Err(_) => making.await,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn few_links_are_made_at_a_time_and_those_that_hang_give_way() {
        let (turns, now, most, made) = (Turns::default(), Cell::new(0), Cell::new(0), Cell::new(0));
        let wanted: Vec<Wanted> = (0..100).map(|_| Wanted::new()).collect();
        let making = |number: usize| {
            let (now, most, made) = (&now, &most, &made);
            async move {
                now.set(now.get() + 1);
                most.set(now.get().max(most.get()));
                // The first of them lead nowhere.
                let hangs = number < AT_A_TIME;
                sleep(if hangs { TAKES } else { S }).await;
                now.set(now.get() - 1);
                sleep(if hangs { S * 10 } else { Duration::ZERO }).await;
                made.set(made.get() + 1);
            }
        };
        let begun = tokio::time::Instant::now();
        join_all(wanted.iter().enumerate().map(|(number, wanted)| turns.take(wanted, making(number)))).await;
        assert_eq!((most.get(), made.get()), (AT_A_TIME, 100));
        assert_eq!(begun.elapsed().as_secs(), 13, "the others have not waited for those");
    }

    #[test]
    fn of_sessions_that_one_end_makes_at_once_one_is_confirmed() {
        let (mut confirmed, now) = (Confirmed::default(), Instant::now());
        let made = [0, 0, 10, 1999, 2000, 2001, 4000].map(|ms| confirmed.may_again(now + Duration::from_millis(ms)));
        assert_eq!(made, [true, false, false, false, true, false, true]);
        // Only the end of that one makes room for another.
        let (last, soon) = (SessionId(7), now + Duration::from_millis(4001));
        confirmed.is(last);
        confirmed.is_over(SessionId(6));
        assert!(!confirmed.may_again(soon));
        confirmed.is_over(last);
        assert!(confirmed.may_again(soon));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_wanted_any_more_when_its_turn_comes_is_not_made() {
        let turns = Turns::default();
        let busy: Vec<Wanted> = (0..AT_A_TIME).map(|_| Wanted::new()).collect();
        let mut before = pin!(join_all(busy.iter().map(|wanted| turns.take(wanted, sleep(S)))));
        let _they_begin = futures_util::poll!(&mut before);
        let late = Wanted::new();
        assert!(late.wait() && !late.wait(), "one waits");
        let made = Cell::new(false);
        let mut waits = pin!(turns.take(&late, async { made.set(true) }));
        assert!(futures_util::poll!(&mut waits).is_pending());
        late.end(true);
        before.await;
        assert_eq!(waits.await, None);
        assert!(!made.get() && late.wait());
    }
}
