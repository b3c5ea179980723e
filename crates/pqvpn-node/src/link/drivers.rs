// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that links live on. Their handshakes cost milliseconds each, which the control side needs under a flood; and what
//! a link allocates is gone when it falls asleep: beside what lasts it would leave holes that never go back to the system.

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
};

/// One for the process, never stopped: endpoints come and go, and farewells outlive them.
static THREAD: Mutex<Option<Handle>> = Mutex::new(None);

/// The thread's runtime, which is started where it does not run yet, or else the caller's.
///
/// # Errors
/// The system has no room for a thread, or the caller has no runtime.
pub(super) fn runtime(apart: bool) -> io::Result<Handle> {
    if !apart {
        return Handle::try_current().map_err(io::Error::other);
    }
    let mut running = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*running {
        return Ok(handle.clone());
    }
    let (tell, told) = mpsc::sync_channel(1);
    // Made where it runs: a runtime must not be dropped inside another, as it would where there is no room for the thread.
    let serve = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            _ = tell.send(Ok(runtime.handle().clone()));
            runtime.block_on(std::future::pending::<()>());
        }
        Err(error) => _ = tell.send(Err(error)),
    };
    thread::Builder::new().name("pqvpn-links".to_owned()).spawn(serve)?;
    let handle = told.recv().map_err(io::Error::other)??;
    *running = Some(handle.clone());
    Ok(handle)
}

/// Whether links are served: waits for that thread, and for ever where it hangs.
pub async fn alive() -> bool {
    let running = THREAD.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match running {
        Some(handle) => run(&handle, async {}).await.is_some(),
        None => true,
    }
}

/// How many tasks links have now.
#[must_use]
pub fn tasks() -> usize {
    let running = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    running.as_ref().map_or(0, |handle| handle.metrics().num_alive_tasks())
}

/// Runs a future there; it ends when it is no longer waited for. `None`: it panicked.
pub(super) fn run<T: Send + 'static>(
    on: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Option<T>> + Send + 'static {
    let mut task = JoinSet::new();
    task.spawn_on(future, on);
    async move { task.join_next().await.and_then(Result::ok) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_there_runs_on_one_thread_and_ends_with_whoever_waits() {
        let on = runtime(true).unwrap();
        let name = run(&on, async { thread::current().name().map(str::to_owned) }).await;
        assert_eq!(name.flatten().as_deref(), Some("pqvpn-links"));
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let endless = run(&on, async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(endless);
        assert!(gone.await.is_err());
        assert_eq!(run(&on, async { panic!("a task") }).await, None::<()>);
        assert!(alive().await, "one task more or less");
    }
}
