// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections of scrapers: so many, each for one request and a few seconds.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections at once; more wait in the kernel's queue.
pub(in crate::server) const MOST: usize = 16;
/// A request head has to be there after that.
pub(in crate::server) const HEAD: Duration = Duration::from_secs(3);
/// A connection ends after that, whatever it is about.
pub(in crate::server) const WHOLE: Duration = Duration::from_secs(10);
/// Longest request head in bytes; the shortest limit there can be.
const HEAD_BYTES: usize = 8 * 1024;
/// Pause after a failed accept: out of file descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers at `listener` until this is dropped; connections end with it.
pub(in crate::server) async fn serve(listener: &TcpListener, router: &Router) -> Infallible {
    let slots = Arc::new(Semaphore::new(MOST));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_finished) = tasks.join_next(), if !tasks.is_empty() => {}
            (stream, slot) = next(listener, &slots) => {
                tasks.spawn(connection(stream, slot, router.clone()));
            }
        }
    }
}

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::debug!(%error, "accept for metrics failed");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, _slot: Option<OwnedSemaphorePermit>, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).keep_alive(false);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(WHOLE, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection for metrics ended"),
        Err(_elapsed) => tracing::debug!("connection for metrics took too long"),
    }
}

/// Refuses requests for a host that is named: whose name it is decides where it leads.
pub(super) async fn only_here(request: Request, next: Next) -> Response {
    if is_for_here(&request) {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "ask for this host by number, or as localhost\n").into_response()
    }
}

fn is_for_here(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    // RFC 9112 3.2: one, and it has to be what is in the request line if that names a host as well.
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    named.is_some_and(|named| is_here(&named)) && request.uri().authority().is_none_or(is_here)
}

fn is_here(authority: &Authority) -> bool {
    let host = authority.host();
    let number = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = !authority.as_str().contains('@');
    plain && (host.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request {
        let mut builder = Request::builder().uri(target.parse::<Uri>().unwrap());
        for host in hosts {
            builder = builder.header(header::HOST, *host);
        }
        builder.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn a_number_and_localhost_are_here() {
        for host in ["127.0.0.1:9001", "127.0.0.1", "[::1]:9001", "localhost", "LOCALHOST:9001", "192.0.2.1:1"] {
            assert!(is_for_here(&request("/metrics", &[host])), "{host}");
        }
        assert!(is_for_here(&request("http://localhost:9001/metrics", &["localhost:9001"])));
    }

    #[test]
    fn a_name_that_somebody_points_here_is_not() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:9001",
            "localhost.evil.example",
            "localhost@evil.example",
            "",
            "[::1",
        ] {
            assert!(!is_for_here(&request("/metrics", &[host])), "{host}");
        }
        assert!(!is_for_here(&request("/metrics", &[])), "no Host");
        assert!(!is_for_here(&request("/metrics", &["localhost", "evil.example"])), "two of them");
        assert!(!is_for_here(&request("http://evil.example/metrics", &["localhost"])), "another in the request line");
    }
}
