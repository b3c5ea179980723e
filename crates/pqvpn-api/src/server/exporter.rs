// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /metrics` for Prometheus, at `metrics.listen`: nothing else, read only, bounded in connections, time and work.
//!
//! Who may connect may read: on loopback every user of this host. A page in a browser on this host may connect as well,
//! under any name that its owner's DNS points here; so there `Host` must be a number, or `localhost`.

pub(super) mod connection;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use pqvpn_node::clock;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    time::{sleep, timeout},
};

use super::Service;
use crate::model::{Health, HealthLevel, METRICS_TEXT};

/// An address that cannot be listened at is tried again after that: it may be one that comes with the interface.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Who asks again within this time gets the same answer: what that costs the node is bounded, however often it is asked.
pub(super) const SAME: Duration = Duration::from_millis(250);
/// Longest time the node may take for its figures.
const PATIENCE: Duration = Duration::from_secs(6);

/// Answers scrapes at `listen` until this is dropped. While that address cannot be had, `status` says so.
pub async fn export(listen: SocketAddr, service: Service) -> Infallible {
    let router = router(listen, service.clone());
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                service.exporter_is(None);
                tracing::info!(%listen, "metrics are shown");
                connection::serve(&listener, &router).await;
            }
            Err(error) => service.exporter_is(Some(format!("no metrics at {listen}: {error}"))),
        }
        sleep(TRY_AGAIN).await;
    }
}

impl Service {
    /// Says what is wrong with the exporter, if anything.
    fn exporter_is(&self, trouble: Option<String>) {
        let item = trouble.map(|text| Health { level: HealthLevel::Warn, code: "metrics-listen".into(), text });
        let mut exporting = self.exporting.write().unwrap_or_else(PoisonError::into_inner);
        if *exporting != item {
            if let Some(item) = &item {
                tracing::warn!(code = item.code, "{}", item.text);
            }
            *exporting = item;
        }
    }
}

/// The figures, and the last answer.
#[derive(Clone)]
pub(super) struct Exporter {
    service: Service,
    last: Arc<Mutex<Option<(Instant, String)>>>,
}

pub(super) fn router(listen: SocketAddr, service: Service) -> Router {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .fallback(|| async { (StatusCode::NOT_FOUND, "the metrics are at /metrics\n") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "GET reads the metrics\n") })
        .with_state(Exporter::new(service));
    if listen.ip().to_canonical().is_loopback() {
        router.layer(middleware::from_fn(connection::only_here))
    } else {
        router
    }
}

async fn scrape(State(exporter): State<Exporter>) -> Response {
    match timeout(PATIENCE, exporter.text(clock::now())).await {
        Ok(Some(text)) => {
            let headers = [(header::CONTENT_TYPE, METRICS_TEXT), (header::CACHE_CONTROL, "no-store")];
            (headers, text).into_response()
        }
        Ok(None) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer\n").into_response(),
    }
}

impl Exporter {
    pub(super) fn new(service: Service) -> Self {
        Self { service, last: Arc::default() }
    }

    pub(super) async fn text(&self, now: Instant) -> Option<String> {
        let mut last = self.last.lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < SAME) {
            return Some(text.clone());
        }
        let text = self.service.metrics().await.ok()?.to_text();
        *last = Some((now, text.clone()));
        Some(text)
    }
}
