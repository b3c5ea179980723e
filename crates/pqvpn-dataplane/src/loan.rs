// SPDX-License-Identifier: MIT OR Apache-2.0
//! Something on its way between the two threads of a queue, one of which has it at any time.

use std::io;

use crate::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    sys::Wake,
    table::lock,
};

/// What the first thread lends to the second, and the second gives back.
pub(crate) struct Loan<T> {
    lent: Mutex<Option<T>>,
    back: Mutex<Option<T>>,
    wake: Wake,
    /// Bytes the first thread received while the second had the loan.
    received: AtomicUsize,
}

impl<T> Loan<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let (lent, back) = (Mutex::new(None), Mutex::new(None));
        Ok(Self { lent, back, wake: Wake::new()?, received: AtomicUsize::new(0) })
    }

    /// Wakes the second thread.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// Drops what is on loan, once both threads have ended.
    pub(crate) fn end(&self) {
        drop((lock(&self.lent).take(), lock(&self.back).take()));
    }

    pub(crate) fn lend(&self, what: T) {
        *lock(&self.lent) = Some(what);
        self.wake();
    }

    /// For the second thread: sleeps until something is lent, or until it is woken to stop.
    pub(crate) fn borrowed(&self, stopping: impl Fn() -> bool) -> io::Result<Option<T>> {
        while !stopping() {
            let lent = lock(&self.lent).take();
            if lent.is_some() {
                self.received.store(0, Ordering::Relaxed);
                return Ok(lent);
            }
            self.wake.wait()?;
            // Before anything is looked at again: a wake-up since then is still there.
            self.wake.clear();
        }
        Ok(None)
    }

    /// For the second thread, which has the first woken afterwards.
    pub(crate) fn give_back(&self, what: T) {
        *lock(&self.back) = Some(what);
    }

    /// For the first thread, once it has cleared its own wake-up.
    pub(crate) fn take_back(&self) -> Option<T> {
        lock(&self.back).take()
    }

    /// Notes what the first thread received meanwhile.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes what was noted.
    pub(crate) fn take_received(&self) -> usize {
        self.received.swap(0, Ordering::Relaxed)
    }
}
