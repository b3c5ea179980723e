// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/metrics`, and the figures themselves: those of `status`, `dht status` and `relay status`, under other names.

mod dht;
mod node;
mod peers;
mod process;
mod relay;

use std::time::Duration;

#[cfg(test)]
pub(in crate::server) use peers::MOST as MOST_PEERS;

use axum::{Json, extract::State};
use tokio::time::timeout;

use super::{Service, reply::because};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{MetricFamily, MetricKind, MetricSample, Metrics, Relaying},
};

/// A part of the node that does not answer in this time is left out.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Metrics>, ApiError> {
    Ok(Json(service.metrics().await?))
}

impl Service {
    /// Every figure at this moment.
    pub(super) async fn metrics(&self) -> Result<Metrics, ApiError> {
        let status = self.status().await.map_err(because("no metrics"))?;
        let dht = timeout(PATIENCE, self.node.dht_status()).await.ok().and_then(Result::ok);
        let relay = timeout(PATIENCE, self.node.relaying()).await.ok().and_then(Result::ok).flatten();
        let mut figures = Figures::default();
        node::tell(&mut figures, &status);
        peers::tell(&mut figures, &status.peers);
        let answered = [("dht", dht.is_some()), ("relay", relay.is_some())];
        if let Some(dht) = dht.filter(|dht| dht.enabled) {
            dht::tell(&mut figures, &dht.into());
        }
        if let Some(relay) = relay {
            relay::tell(&mut figures, &Relaying::from(relay));
        }
        process::tell(&mut figures);
        figures.gauges(
            "pqvpn_collect_success",
            "Whether a part of the node answered when it was asked for its figures.",
            answered.map(|(part, answered)| (vec![("part", part.to_owned())], f64::from(answered))),
        );
        Ok(Metrics { schema: SCHEMA, families: figures.0 })
    }
}

/// Labels of one sample.
type Labels = Vec<(&'static str, String)>;

/// The families told so far.
#[derive(Default)]
struct Figures(Vec<MetricFamily>);

impl Figures {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [(Labels::new(), value)]);
    }

    fn gauges(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.family(MetricKind::Gauge, name, help, samples);
    }

    fn counters(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        self.family(
            MetricKind::Counter,
            name,
            help,
            samples.into_iter().map(|(labels, value)| (labels, number(value))),
        );
    }

    /// A family without samples is none; a figure that is no number is not known.
    fn family(&mut self, kind: MetricKind, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let finite = samples.into_iter().filter(|(_, value)| value.is_finite());
        let samples: Vec<MetricSample> = finite.map(|(labels, value)| sample(labels, value)).collect();
        if !samples.is_empty() {
            self.0.push(MetricFamily { name: name.to_owned(), kind, help: help.to_owned(), samples });
        }
    }
}

fn sample(labels: Labels, value: f64) -> MetricSample {
    MetricSample { labels: labels.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(), value }
}

/// A count as Prometheus keeps it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: nine petabytes")]
const fn number(count: u64) -> f64 {
    count as f64
}

/// So many of something, as Prometheus keeps it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn size(count: usize) -> f64 {
    count as f64
}

/// Milliseconds in seconds, without digits that were not measured.
fn seconds(milliseconds: f64) -> f64 {
    crate::model::rounded(milliseconds / 1000.0, 1e6)
}
