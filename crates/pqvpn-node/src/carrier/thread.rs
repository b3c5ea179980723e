// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that streams and the port of carriers are served by: the TLS of a bulk transfer takes whole milliseconds at
//! a time, which the control side needs for the beats and handshakes of its links.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

/// A thread with a runtime of its own; ends, and every task on it, when dropped.
#[derive(Debug)]
pub(super) struct Thread {
    runtime: Handle,
    _lives: Option<oneshot::Sender<()>>,
}

impl Thread {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (lives, ended)) = (runtime.handle().clone(), oneshot::channel());
        thread::Builder::new().name("pqvpn-carriers".to_owned()).spawn(move || {
            let _dropped = runtime.block_on(ended);
            // What still looks up a name is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _lives: Some(lives) })
    }

    /// The runtime of the test itself, whose clock it may have stopped.
    #[cfg(test)]
    pub(super) fn of_tests() -> Self {
        Handle::try_current().map_or_else(|_none| Self::start().unwrap(), |runtime| Self { runtime, _lives: None })
    }

    /// The runtime of the caller.
    #[cfg(feature = "sim")]
    pub(super) fn of_caller() -> Result<Self, crate::link::LinkError> {
        let runtime = Handle::try_current().map_err(|error| crate::link::LinkError::Local(error.to_string()))?;
        Ok(Self { runtime, _lives: None })
    }

    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_run_on_a_thread_of_their_own_until_it_is_dropped() {
        let thread = Thread::start().unwrap();
        let ran_on = thread.spawn(async { thread::current().name().map(str::to_owned) }).await.unwrap();
        assert_eq!(ran_on.as_deref(), Some("pqvpn-carriers"));
        let endless = thread.spawn(std::future::pending::<()>());
        drop(thread);
        assert!(endless.await.is_err(), "it has ended");
    }
}
