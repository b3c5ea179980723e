// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work that waits for a disk or takes long, away from the runtime's thread; and the tasks that a node consists of.

use tokio::task::{JoinHandle, spawn_blocking};

/// Runs `work` on a thread of its own; under virtual time at once, because what it takes is nothing there.
pub(crate) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(feature = "sim")]
    if crate::sim::now().is_some() {
        let done = work();
        return tokio::spawn(async move { done });
    }
    spawn_blocking(work)
}

/// Spawns a task that is a part of the node; under virtual time on the host whose task spawns it.
#[cfg(feature = "sim")]
pub(crate) use crate::sim::spawn;
#[cfg(not(feature = "sim"))]
pub(crate) use tokio::spawn;
