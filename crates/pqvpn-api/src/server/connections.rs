// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accepts connections, checks who calls, and runs each on a task this file owns.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{Router, response::IntoResponse};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Access, Caller, ControlSocket, reply};

/// Connections served at once; further callers wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// A caller has this long to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors, mostly).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

pub(super) async fn serve(
    socket: &ControlSocket,
    access: Arc<Access>,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let (draining, drain) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_finished) = tasks.join_next(), if !tasks.is_empty() => continue,
            stream = next_stream(socket, &slots) => stream,
        };
        tasks.spawn(connection(stream, Arc::clone(&access), router.clone(), drain.clone()));
    }
    draining.send_replace(true);
    if timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = tasks.len(), "control requests cut off");
    }
}

/// A connection that holds its slot.
struct Admitted {
    stream: UnixStream,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

async fn next_stream(socket: &ControlSocket, slots: &Arc<Semaphore>) -> Admitted {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            // The semaphore is never closed.
            std::future::pending::<()>().await;
            continue;
        };
        match socket.listener.accept().await {
            Ok((stream, _address)) => return Admitted { stream, _slot: slot },
            Err(error) => {
                tracing::debug!(%error, "control accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn connection(admitted: Admitted, access: Arc<Access>, router: Router, mut drain: watch::Receiver<bool>) {
    let router = if may_call(&admitted.stream, access).await {
        router
    } else {
        Router::new().fallback(|| async { reply::forbidden().into_response() })
    };
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(admitted.stream), service));
    let served = tokio::select! {
        served = &mut serving => served,
        () = async { drop(drain.wait_for(|draining| *draining).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "control connection ended");
    }
}

/// Whether the kernel says the caller is one the rule permits.
async fn may_call(stream: &UnixStream, access: Arc<Access>) -> bool {
    let Ok(cred) = stream.peer_cred() else { return false };
    let caller = Caller { uid: cred.uid(), gid: cred.gid() };
    let permitted = tokio::task::spawn_blocking(move || access.permits(caller)).await.unwrap_or(false);
    if !permitted {
        tracing::warn!(uid = caller.uid, gid = caller.gid, "control call refused");
    }
    permitted
}
