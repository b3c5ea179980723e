// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exporter over TCP: what it answers, to whom, and that nobody can hold it up. Time is virtual.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, routing::get};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{metrics::answer_all, *};
use crate::{
    model::METRICS_TEXT,
    server::{
        export,
        exporter::{
            Exporter, SAME,
            connection::{self, HEAD, MOST, WHOLE},
            router,
        },
    },
};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);

/// A service in front of a node that answers snapshots, counted.
fn service() -> (Service, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let answer = answer_all(move || {
        counter.fetch_add(1, Relaxed);
        a_snapshot()
    });
    let (tx, mut rx) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(command) = rx.recv().await {
            answer(command);
        }
    });
    (Service::new(NodeHandle::new(tx), identity()), asked)
}

/// Serves on a port of the kernel's choice.
async fn serving(router: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { connection::serve(&listener, &router).await });
    at
}

async fn exporting() -> SocketAddr {
    serving(router(LOOPBACK, service().0)).await
}

/// Sends bytes and reads until the other end closes.
async fn exchange(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is the end as well.
    let _reset = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

async fn ask(at: SocketAddr, line: &str, host: &str) -> String {
    exchange(at, &format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

#[tokio::test]
async fn a_scrape_is_answered_as_text_and_the_connection_ends() {
    let answer = ask(exporting().await, "GET /metrics", "127.0.0.1:9001").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(status_of(head), "200");
    assert!(head.to_lowercase().contains(&format!("content-type: {METRICS_TEXT}\r\n")), "{head}");
    assert!(body.starts_with("# HELP pqvpn_build_info ") && body.ends_with('\n'), "{body}");
    assert!(body.contains("\npqvpn_node_up 1\n"), "{body}");
}

#[tokio::test]
async fn nothing_else_is_there() {
    let at = exporting().await;
    for path in ["/", "/metrics/", "/metrics/x", "/v1/status", "/v1/shutdown", "//metrics", "/%6detrics"] {
        assert_eq!(status_of(&ask(at, &format!("GET {path}"), "localhost").await), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = ask(at, &format!("{method} /metrics"), "localhost").await;
        assert_eq!(status_of(&answer), "405", "{method}");
        assert!(answer.to_lowercase().contains("\r\nallow: get"), "{answer}");
    }
}

#[tokio::test]
async fn on_loopback_a_host_that_is_named_is_refused() {
    let at = exporting().await;
    for host in ["evil.example", "localhost.evil.example:9001", "127.0.0.1.evil.example"] {
        let answer = ask(at, "GET /metrics", host).await;
        assert_eq!(status_of(&answer), "421", "{host}");
        assert!(!answer.contains("pqvpn_"), "{answer}");
    }
    assert_eq!(status_of(&exchange(at, "GET /metrics HTTP/1.1\r\n\r\n").await), "421");
    assert_eq!(status_of(&ask(at, "GET http://evil.example/metrics", "localhost").await), "421");
    assert_eq!(status_of(&ask(at, "GET /metrics", "[::1]:9001").await), "200");
}

#[tokio::test]
async fn an_address_the_config_opens_to_others_may_be_asked_by_name() {
    let at = serving(router("192.0.2.1:9001".parse().unwrap(), service().0)).await;
    assert_eq!(status_of(&ask(at, "GET /metrics", "nas.home.pqvpn:9001").await), "200");
}

#[tokio::test]
async fn a_request_head_is_bounded() {
    let at = exporting().await;
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(at).await.unwrap();
    // The other end may close before all of it is there.
    let _closed = stream.write_all(long.as_bytes()).await;
    assert!(!rest(&mut stream).await.contains("pqvpn_node_up"));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_its_request_is_cut_off() {
    let at = exporting().await;
    for begun in ["", "GET /metrics HTTP/1.1\r\nHost: local"] {
        let since = Instant::now();
        let answer = exchange(at, begun).await;
        assert!(!answer.contains("pqvpn_"), "{answer}");
        assert!(since.elapsed() >= HEAD && since.elapsed() < WHOLE, "{:?}", since.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn no_connection_lasts_longer_than_its_time() {
    let never = Router::new().route("/metrics", get(std::future::pending::<&'static str>));
    let at = serving(never).await;
    let since = Instant::now();
    assert_eq!(ask(at, "GET /metrics", "localhost").await, "");
    assert!(since.elapsed() >= WHOLE && since.elapsed() < WHOLE * 2, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_and_those_that_wait_come_to_their_turn() {
    let at = exporting().await;
    let mut silent = Vec::new();
    for _ in 0..MOST {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    let since = Instant::now();
    assert_eq!(status_of(&ask(at, "GET /metrics", "localhost").await), "200");
    assert!(since.elapsed() >= HEAD, "it had to wait until one of {} was cut off: {:?}", silent.len(), since.elapsed());
}

#[tokio::test]
async fn who_asks_all_the_time_gets_the_same_answer() {
    let (service, asked) = service();
    let (exporter, now) = (Exporter::new(service), std::time::Instant::now());
    for _ in 0..50 {
        assert!(exporter.text(now + SAME / 2).await.is_some());
    }
    assert_eq!(asked.load(Relaxed), 1);
    assert!(exporter.text(now + SAME * 2).await.is_some());
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test]
async fn a_node_that_has_gone_is_no_answer() {
    let (tx, rx) = mpsc::channel(1);
    drop(rx);
    let at = serving(router(LOOPBACK, Service::new(NodeHandle::new(tx), identity()))).await;
    assert_eq!(status_of(&ask(at, "GET /metrics", "localhost").await), "503");
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_is_told_in_status_and_tried_again() {
    let (service, _) = service();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = taken.local_addr().unwrap();
    let exporter = tokio::spawn(export(at, service.clone()));
    let told = |status: model::Status| status.health.iter().any(|item| item.code == "metrics-listen");
    while !told(service.status().await.unwrap()) {
        tokio::task::yield_now().await;
    }
    drop(taken);
    let answer = loop {
        let Ok(mut stream) = TcpStream::connect(at).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        break rest(&mut stream).await;
    };
    assert_eq!(status_of(&answer), "200");
    assert!(!told(service.status().await.unwrap()));
    exporter.abort();
}
