// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every interleaving of the threads that hand packets on to each other, by the model checker loom: the sources themselves,
//! with its locks and atomics in place of the standard library's.

#![expect(clippy::unwrap_used, reason = "in a model nothing is left to handle")]

use std::{
    collections::BTreeSet,
    sync::{Arc as Plain, Mutex as Real},
};

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::{loan::Loan, park::Parked, sys::Wake};

mod sync {
    pub(crate) use loom::sync::{Mutex, atomic};
}

mod table {
    use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

mod sys {
    use std::io;

    use loom::sync::{Condvar, Mutex};

    /// As an eventfd: set until it is cleared, whoever waits sees it.
    pub(crate) struct Wake(Mutex<bool>, Condvar);

    impl Wake {
        #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(Mutex::new(false), Condvar::new()))
        }

        pub(crate) fn wake(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }

        pub(crate) fn clear(&self) {
            *self.0.lock().unwrap() = false;
        }

        #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
        pub(crate) fn wait(&self) -> io::Result<()> {
            let mut set = self.0.lock().unwrap();
            while !*set {
                set = self.1.wait(set).unwrap();
            }
            Ok(())
        }
    }
}

#[path = "../src/loan.rs"]
mod loan;
#[path = "../src/park.rs"]
mod park;

/// Runs a model with so many preemptions; gives how many interleavings there were.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    let runs = Plain::new(Real::new(0));
    let counted = Plain::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        *counted.lock().unwrap() += 1;
        model();
    });
    *runs.lock().unwrap()
}

/// What both threads of a queue and whoever stops them share.
struct Queue {
    loan: Loan<Arc<()>>,
    /// Wakes the first thread.
    wake: Wake,
    stop: AtomicBool,
}

impl Queue {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The first thread: lends, and takes back when it is woken.
    fn first(&self, what: Arc<()>, times: usize) {
        let mut own = Some(what);
        let mut lent = 0;
        while !self.stopping() {
            if lent < times
                && let Some(what) = own.take()
            {
                self.loan.lend(what);
                self.loan.note_received(0);
                lent += 1;
            }
            self.wake.wait().unwrap();
            self.wake.clear();
            if own.is_none() {
                own = self.loan.take_back();
            }
        }
    }

    /// The second thread: gives back at once.
    fn second(&self, served: &AtomicUsize) {
        while let Some(what) = self.loan.borrowed(|| self.stopping()).unwrap() {
            served.fetch_add(1 + self.loan.take_received(), Ordering::Relaxed);
            self.loan.give_back(what);
            self.wake.wake();
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
        self.loan.wake();
    }
}

#[test]
fn whenever_it_is_stopped_both_threads_end_and_what_was_on_loan_is_dropped() {
    let served = Plain::new(Real::new(BTreeSet::new()));
    let seen = Plain::clone(&served);
    let runs = explore(3, move || {
        let queue =
            Arc::new(Queue { loan: Loan::new().unwrap(), wake: Wake::new().unwrap(), stop: AtomicBool::new(false) });
        let what = Arc::new(());
        let count = Arc::new(AtomicUsize::new(0));
        let first = {
            let (queue, what) = (Arc::clone(&queue), Arc::clone(&what));
            thread::spawn(move || queue.first(what, 2))
        };
        let second = {
            let (queue, count) = (Arc::clone(&queue), Arc::clone(&count));
            thread::spawn(move || queue.second(&count))
        };
        queue.stop();
        // A thread that sleeps for ever is found by loom.
        first.join().unwrap();
        second.join().unwrap();
        queue.loan.end();
        assert!(Arc::try_unwrap(what).is_ok(), "somebody still has what was lent");
        seen.lock().unwrap().insert(count.load(Ordering::Relaxed));
    });
    let served = served.lock().unwrap().clone();
    assert_eq!(served, BTreeSet::from([0, 1, 2]), "all of it happens, in {runs} runs");
}

#[test]
fn no_packet_waits_on_once_its_session_is_there() {
    let now = std::time::Instant::now();
    let runs = explore(3, move || {
        let in_all = Plain::new(AtomicUsize::new(0));
        let (parked, active) = (Arc::new(Parked::counted_in(Plain::clone(&in_all))), Arc::new(AtomicBool::new(false)));
        let wakes = Arc::new([Wake::new().unwrap(), Wake::new().unwrap()]);
        // Each reads one packet and then does as it is woken, as the outbound side of a queue.
        let threads: Vec<_> = [1_u8, 2]
            .into_iter()
            .map(|number| {
                let (parked, active, wakes) = (Arc::clone(&parked), Arc::clone(&active), Arc::clone(&wakes));
                thread::spawn(move || {
                    let mut sent = Vec::new();
                    if active.load(Ordering::Acquire) {
                        sent.push(number);
                    } else {
                        parked.park(&[number], now);
                    }
                    let wake = &wakes[usize::from(number) - 1];
                    wake.wait().unwrap();
                    wake.clear();
                    if active.load(Ordering::Acquire) && parked.len() > 0 {
                        assert_eq!(parked.drain(now, |packet| sent.push(packet[0])), 0);
                    }
                    sent
                })
            })
            .collect();
        active.store(true, Ordering::Release);
        wakes.iter().for_each(Wake::wake);
        let mut sent: Vec<u8> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        sent.sort_unstable();
        assert_eq!((sent, parked.len(), parked.expire(now)), (vec![1, 2], 0, 0));
        assert_eq!(in_all.load(Ordering::Relaxed), 0);
    });
    assert!(runs > 10, "{runs} runs");
}
