// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signals that end a daemon in good order.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::failure::Failure;

/// Signals so close together are one wish: `timeout` sends one to its child and one to the whole group.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Streams of the signals; one that arrives before it is asked for is not lost.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed("signals", "no daemon", error, "look at the limits of the process"))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Name of the next signal.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }

    /// Somebody asks once more, and means it.
    pub(super) async fn again(&mut self) {
        let since = Instant::now() + ONE_WISH;
        loop {
            tokio::select! {
                _same = self.next() => {}
                () = sleep_until(since) => break,
            }
        }
        self.next().await;
    }
}
