// SPDX-License-Identifier: MIT OR Apache-2.0
//! The listening end: a web server to everybody, a carrier to who knows the path.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pqvpn_crypto::peer_id::PeerId;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{Place, Ways, dial::SEND_BUFFER, ladder::Rung, limits::Limits, secret, stream};
use crate::clock;

/// How long a TLS handshake may take, and the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(8);
const HEAD: Duration = Duration::from_secs(8);
/// How long somebody may look at the pages.
const VISIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head that are held.
const MAX_HEAD: usize = 16 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;
/// What strangers see.
const PAGE: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome</title>\n</head>\n<body>\n<h1>It works!</h1>\n\
                    <p>This server has no content yet.</p>\n</body>\n</html>\n";
const NOT_FOUND: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>404 Not Found</title>\n</head>\n<body>\n\
                         <h1>Not Found</h1>\n</body>\n</html>\n";

/// What happened at the door.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections beyond the limits.
    pub(crate) refused: AtomicU64,
    /// Handshakes that came to nothing.
    pub(crate) broken: AtomicU64,
    /// Requests that got a page.
    pub(crate) strangers: AtomicU64,
}

/// A server while it listens.
pub(super) struct Server {
    own: PeerId,
    tls: TlsAcceptor,
    ways: Arc<Ways>,
    limits: Mutex<Limits>,
    counts: Arc<Counts>,
    /// Everything ends with it.
    stop: watch::Receiver<()>,
}

/// A connection that was let in; leaves when dropped.
struct Visit {
    server: Arc<Server>,
    from: SocketAddr,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.server.limits().leave(self.from.ip());
    }
}

/// Opens a listening socket.
///
/// # Errors
/// The system refuses.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

impl Server {
    pub(super) fn new(
        own: PeerId,
        tls: Arc<ServerConfig>,
        ways: Arc<Ways>,
        counts: Arc<Counts>,
        stop: watch::Receiver<()>,
    ) -> Arc<Self> {
        Arc::new(Self { own, tls: TlsAcceptor::from(tls), ways, limits: Mutex::default(), counts, stop })
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may pass, and the answer to it if so.
    fn upgrade_for(&self, request: &Request<Incoming>) -> Option<HeaderValue> {
        let headers = request.headers();
        let fits = request.method() == Method::GET
            && secret::is_path(&self.own, clock::unix_seconds(), request.uri().path())
            && names(headers, UPGRADE, "websocket")
            && names(headers, CONNECTION, "upgrade")
            && names(headers, SEC_WEBSOCKET_VERSION, "13");
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| fits)?;
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
    }
}

/// Whether a header that lists words has one.
fn names(headers: &HeaderMap, header: HeaderName, word: &str) -> bool {
    let lists = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// Takes connections until the server stops.
pub(super) async fn accept_all(server: Arc<Server>, listener: TcpListener) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptor is left, or the connection is gone already.
                tracing::debug!(%error, "no connection taken");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(refused) = server.limits().enter(clock::now(), from.ip()) {
            server.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(?refused, "a connection to the carriers is closed");
            continue;
        }
        let _best_effort = stream.set_nodelay(true);
        let visit = Arc::new(Visit { server: Arc::clone(&server), from });
        let mut stop = server.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serve(visit, stream) => {}
                _ = stop.changed() => {}
            }
        });
    }
}

async fn serve<S>(visit: Arc<Visit>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = &visit.server;
    let Ok(Ok(stream)) = timeout(HANDSHAKE, server.tls.accept(stream)).await else {
        server.counts.broken.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let service = service_fn(|request| {
        let answer = answer(&visit, request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if !matches!(timeout(VISIT, connection).await, Ok(Ok(()))) {
        server.counts.broken.fetch_add(1, Ordering::Relaxed);
    }
}

fn answer(visit: &Arc<Visit>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let server = &visit.server;
    let Some(accept) = server.upgrade_for(&request) else {
        server.counts.strangers.fetch_add(1, Ordering::Relaxed);
        return page(request.uri().path());
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let (visit, mut stop) = (Arc::clone(visit), server.stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = carry(&visit, upgraded) => {}
            _ = stop.changed() => {}
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn page(path: &str) -> Response<Full<Bytes>> {
    let (status, text) =
        if matches!(path, "/" | "/index.html") { (StatusCode::OK, PAGE) } else { (StatusCode::NOT_FOUND, NOT_FOUND) };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

async fn carry(visit: &Visit, upgraded: OnUpgrade) {
    let Ok(upgraded) = upgraded.await else { return };
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(stream::config())).await;
    let ways = &visit.server.ways;
    let Some(way) = ways.open(Place { rung: Rung::Wss, at: canonical(visit.from) }) else { return };
    let ended = stream::carry(stream, way.id, &way.sink, ways.plane(), false).await;
    tracing::debug!(%ended, "a carrier has ended");
}

/// The address as people write it.
pub(super) fn canonical(at: SocketAddr) -> SocketAddr {
    match at.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, at.port())),
        IpAddr::V6(_) => at,
    }
}

#[cfg(test)]
mod tests;
