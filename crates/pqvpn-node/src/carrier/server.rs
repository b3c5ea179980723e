// SPDX-License-Identifier: MIT OR Apache-2.0
//! The listening end: a web server to everybody, a carrier to who knows the path.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{
        ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pqvpn_crypto::peer_id::PeerId;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    Place, Ways,
    dial::{hold_little, mark},
    ladder::Rung,
    limits::{Limits, Refused},
    secret, stream,
    ways::Use,
};
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
const BAD_REQUEST: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>400 Bad Request</title>\n</head>\n<body>\n\
                           <h1>Bad Request</h1>\n</body>\n</html>\n";
const NOT_ALLOWED: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>405 Method Not Allowed</title>\n</head>\n<body>\n\
                           <h1>Method Not Allowed</h1>\n</body>\n</html>\n";
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
    /// Who is in, by number: the oldest first.
    visits: Mutex<BTreeMap<u64, Weak<Visit>>>,
    counts: Arc<Counts>,
    /// Everything ends with it.
    stop: watch::Receiver<()>,
}

/// A connection that was let in; leaves when dropped.
struct Visit {
    server: Arc<Server>,
    number: u64,
    from: SocketAddr,
    has_left: AtomicBool,
    /// Its carried way, once there is one.
    way: Mutex<Option<SocketAddr>>,
    /// Its place is another's.
    is_over: watch::Sender<bool>,
}

impl Visit {
    /// Its place is free; the connection ends.
    fn leave(&self) {
        if !self.has_left.swap(true, Ordering::AcqRel) {
            self.server.limits().leave(self.from.ip());
            self.server.visits().remove(&self.number);
            self.is_over.send_replace(true);
        }
    }

    /// Who uses it.
    fn used_by(&self) -> Use {
        let way = *self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.map_or(Use::Nobody, |way| self.server.ways.used_by(now(), way))
    }

    /// Does something until the place is another's or the server stops.
    async fn during(&self, what: impl Future<Output = ()>) {
        let (mut stop, mut over) = (self.server.stop.clone(), self.is_over.subscribe());
        tokio::select! {
            () = what => {}
            _ = stop.changed() => {}
            _ = over.wait_for(|over| *over) => {}
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The clock of these tasks.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Opens a listening socket.
///
/// # Errors
/// The system refuses.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Each connection has the options of this one.
    hold_little(&SockRef::from(&socket))?;
    mark(&SockRef::from(&socket));
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
        let (limits, visits) = (Mutex::default(), Mutex::default());
        Arc::new(Self { own, tls: TlsAcceptor::from(tls), ways, limits, visits, counts, stop })
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visits(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Visit>>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in. Where all places are taken, the oldest one goes that nobody authenticated uses, or else the
    /// oldest that a stranger uses.
    ///
    /// # Errors
    /// [`Refused`].
    fn admit(self: &Arc<Self>, from: SocketAddr) -> Result<Arc<Visit>, Refused> {
        let mut entered = self.limits().enter(now(), from.ip());
        if entered == Err(Refused::All) && self.make_room() {
            entered = self.limits().enter(now(), from.ip());
        }
        entered?;
        let mut visits = self.visits();
        let number = visits.last_key_value().map_or(0, |(number, _)| number + 1);
        let (server, has_left, way) = (Arc::clone(self), AtomicBool::default(), Mutex::default());
        let visit = Arc::new(Visit { server, number, from, has_left, way, is_over: watch::Sender::new(false) });
        visits.insert(number, Arc::downgrade(&visit));
        Ok(visit)
    }

    fn make_room(&self) -> bool {
        self.ways.look_at_links(now());
        // Not under the lock: the last holder of a visit takes it.
        let all: Vec<Arc<Visit>> = self.visits().values().filter_map(Weak::upgrade).collect();
        let uses = all.iter().map(|visit| (visit.used_by(), visit)).filter(|(by, _)| *by < Use::Peer);
        let oldest = uses.min_by_key(|(by, visit)| (*by, visit.number)).map(|(_, visit)| visit);
        oldest.inspect(|visit| visit.leave()).is_some()
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
        let visit = match server.admit(from) {
            Ok(visit) => visit,
            Err(refused) => {
                server.counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(?refused, "a connection to the carriers is closed");
                continue;
            }
        };
        tokio::spawn(async move { visit.during(serve(&visit, stream)).await });
    }
}

async fn serve<S>(visit: &Arc<Visit>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = &visit.server;
    let Ok(Ok(stream)) = timeout(HANDSHAKE, server.tls.accept(stream)).await else {
        server.counts.broken.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let service = service_fn(|request| {
        let answer = answer(visit, request);
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
        return page(&request);
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let visit = Arc::clone(visit);
    tokio::spawn(async move { visit.during(carry(&visit, upgraded)).await });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// What an ordinary web server says.
fn page(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let lacks_host = request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST);
    let (status, text) = match (request.method(), request.uri().path()) {
        _ if lacks_host => (StatusCode::BAD_REQUEST, BAD_REQUEST),
        (&Method::GET | &Method::HEAD, "/" | "/index.html") => (StatusCode::OK, PAGE),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, NOT_FOUND),
        _ => (StatusCode::METHOD_NOT_ALLOWED, NOT_ALLOWED),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

async fn carry(visit: &Visit, upgraded: OnUpgrade) {
    let Ok(upgraded) = upgraded.await else { return };
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(stream::config())).await;
    let ways = &visit.server.ways;
    let Some(way) = ways.open(Place { rung: Rung::Wss, at: canonical(visit.from) }) else { return };
    *visit.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(way.id.address());
    tokio::select! {
        ended = stream::carry(stream, way.id, &way.sink, ways.plane(), None) => tracing::debug!(%ended, "a carrier has ended"),
        () = ways.until_bare(way.id.address()) => tracing::debug!("a carrier has no link"),
    }
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
