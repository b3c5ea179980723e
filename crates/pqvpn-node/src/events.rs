// SPDX-License-Identifier: MIT OR Apache-2.0
//! What packet threads tell the control side: they never wait, and what is told only once is not lost.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use pqvpn_dataplane::Event;
use tokio::sync::mpsc::{Sender, error::TrySendError};

/// Once-told events kept at a time; of each session there are a few.
const MAX_KEPT: usize = 16_384;

/// What found the queue full.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    lost: AtomicU64,
    kept: Mutex<Vec<Event>>,
}

impl Overflow {
    /// Events that are lost: their causes repeat them.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether there is anything to [`Self::take`].
    pub(crate) fn is_any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Events that nobody repeats, oldest first.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock())
    }

    fn note(&self, event: Event) {
        let mut kept = self.lock();
        if is_told_once(&event) && kept.len() < MAX_KEPT {
            kept.push(event);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves an event in the queue, or keeps it where it is not repeated.
pub(crate) fn leave(event: Event, queue: &Sender<Event>, overflow: &Arc<Overflow>) {
    match queue.try_send(event) {
        Ok(()) | Err(TrySendError::Closed(_)) => {}
        Err(TrySendError::Full(event)) => overflow.note(event),
    }
}

const fn is_told_once(event: &Event) -> bool {
    matches!(
        event,
        Event::EpochSeen { .. }
            | Event::StepWanted { .. }
            | Event::ForgeryLimit { .. }
            | Event::Ended { .. }
            | Event::Failed { .. }
    )
}

#[cfg(test)]
mod tests {
    use pqvpn_dataplane::SessionId;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_told_once_survives_a_full_queue_and_what_is_repeated_does_not() {
        let (queue, mut events) = mpsc::channel(1);
        let overflow = Arc::new(Overflow::default());
        let asked = || Event::NeedSession { peer: 1 };
        leave(asked(), &queue, &overflow);
        assert!(!overflow.is_any() && overflow.lost() == 0);
        leave(Event::Ended { session: SessionId(7), reason: 0 }, &queue, &overflow);
        leave(asked(), &queue, &overflow);
        assert_eq!((overflow.is_any(), overflow.lost()), (true, 1));
        assert!(matches!(events.try_recv(), Ok(Event::NeedSession { .. })));
        assert!(matches!(overflow.take()[..], [Event::Ended { session: SessionId(7), .. }]));
        assert!(!overflow.is_any());
        for session in 0..=MAX_KEPT as u64 {
            overflow.note(Event::ForgeryLimit { session: SessionId(session) });
        }
        assert_eq!((overflow.take().len(), overflow.lost()), (MAX_KEPT, 2));
    }
}
