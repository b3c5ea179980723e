// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory, threads and descriptors of a process, looked at again and again.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pqvpn_lab::process::Usage;

/// One look.
#[derive(Debug, Clone, Copy)]
pub(in crate::command) struct Sample {
    /// Since the first.
    pub(in crate::command) at: Duration,
    pub(in crate::command) usage: Usage,
    pub(in crate::command) descriptors: usize,
}

impl Sample {
    /// Looks now.
    pub(in crate::command) fn take(pid: u32, since: Instant) -> io::Result<Self> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { at: since.elapsed(), usage: Usage::of(pid)?, descriptors })
    }
}

/// Looks at a process until told to stop.
pub(in crate::command) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    pub(in crate::command) fn start(pid: u32, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (wanted, begun) = (Arc::clone(&stop), Instant::now());
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !wanted.load(Ordering::Relaxed) {
                // A process that has ended is noticed elsewhere.
                samples.extend(Sample::take(pid, begun));
                thread::sleep(pace);
            }
            samples
        });
        Self { stop, thread }
    }

    pub(in crate::command) fn finish(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The middle one of some numbers; 0 of none.
pub(in crate::command) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
