// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links over noq, the default: multipath and NAT traversal are there for later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use noq as quic;
use noq::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, InvalidCid, PathId};
use noq_proto::HashedConnectionIdGenerator;

use super::config::TransportKnobs;
use backend::QuicSocket;
use moved::{Moved, Watched};
use paced::PacedConfig;
use retries::Retries;
use socket::NoqSocket;

#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend.rs"]
mod backend;
mod moved;
mod paced;
mod retries;
mod socket;

pub(super) use backend::endpoint;

/// Whether links stay where their peer's address changes.
const ROAMS: bool = true;

/// How this stack holds a socket.
type AbstractSocket = Box<dyn AsyncUdpSocket>;

fn abstract_socket(socket: QuicSocket, moved: &Moved) -> AbstractSocket {
    Box::new(NoqSocket::new(socket, moved.clone()))
}

/// Counts the datagrams whose connection id is none of ours: garbage that only looks like QUIC.
///
/// One key for all generators of the endpoint, and of that after a restart: each must know the ids of the others.
fn count_strangers(mut config: noq::EndpointConfig, key: u64, strangers: Arc<AtomicU64>) -> noq::EndpointConfig {
    let generator = move || -> Box<dyn ConnectionIdGenerator> {
        Box::new(CountingIds { ids: HashedConnectionIdGenerator::from_key(key), strangers: Arc::clone(&strangers) })
    };
    config.cid_generator(Arc::new(generator));
    config
}

/// Connection ids that carry a check value, and a count of those that failed it.
struct CountingIds {
    ids: HashedConnectionIdGenerator,
    strangers: Arc<AtomicU64>,
}

impl ConnectionIdGenerator for CountingIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.ids.generate_cid()
    }

    fn validate(&self, id: ConnectionId) -> Result<(), InvalidCid> {
        self.ids.validate(id).inspect_err(|_stranger| {
            self.strangers.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn cid_len(&self) -> usize {
        self.ids.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.ids.cid_lifetime()
    }
}

fn congestion(knobs: &TransportKnobs) -> Arc<PacedConfig> {
    Arc::new(PacedConfig::new(knobs.initial_window, knobs.initial_rtt))
}

async fn drained(endpoint: &noq::Endpoint) {
    endpoint.wait_all_draining().await;
}

fn remote(connection: &noq::Connection) -> Option<SocketAddr> {
    connection.path(PathId::ZERO)?.remote_address().ok()
}

fn rtt(connection: &noq::Connection) -> Duration {
    connection.rtt(PathId::ZERO).unwrap_or_default()
}

fn tls_error(error: &noq::ConnectionError) -> Option<&rustls::Error> {
    let noq::ConnectionError::TransportError(error) = error else {
        return None;
    };
    error.crypto.as_ref()?.downcast_ref()
}
