// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon's side of the control API: one file per resource, one task per connection, nothing unbounded.

mod access;
mod bootstrap;
mod connections;
mod dht;
mod disconnect;
mod dns;
mod exporter;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod identity;
mod invites;
mod join;
mod keys;
mod lock;
mod members;
mod metrics;
mod netcheck;
mod networks;
mod peers;
mod ping;
mod rekey;
mod relay;
mod reply;
mod requests;
mod set;
mod shutdown;
mod socket;
mod started;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod version;

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use pqvpn_node::{bootstrap::Shelf, handle::NodeHandle};

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use self::fuzz::control_socket as fuzz_control_socket;
pub use self::{
    access::{Access, Caller, OPERATOR_GROUP},
    exporter::export,
    reply::because,
    socket::{ControlSocket, SocketError},
};
use crate::{PREFIX, model};

/// Largest request body in bytes; every request but a list of bootstrap nodes is one small object.
const BODY_LIMIT: usize = 16 * 1024;

/// What the resources need: the node, and the identity facts the node itself does not keep.
#[derive(Debug, Clone)]
pub struct Service {
    node: NodeHandle,
    /// Replaced when the node's key is rotated.
    identity: Arc<RwLock<model::Identity>>,
    settings: Option<Arc<set::SettingsFile>>,
    bootstrap: Option<Arc<bootstrap::Kept>>,
    /// What the daemon took away from itself.
    confinement: Option<model::Confinement>,
    /// What the daemon was started with, and what was set since.
    started: Option<Arc<RwLock<model::Started>>>,
    /// What is wrong with the exporter.
    exporting: Arc<RwLock<Option<model::Health>>>,
}

impl Service {
    /// Puts the API in front of a node. `identity` is what `GET /v1/id` answers.
    #[must_use]
    pub fn new(node: NodeHandle, identity: model::Identity) -> Self {
        let exporting = Arc::default();
        let identity = Arc::new(RwLock::new(identity));
        Self { node, identity, settings: None, bootstrap: None, confinement: None, started: None, exporting }
    }

    /// Keeps what `POST /v1/set` changes in a configuration file, too.
    #[must_use]
    pub fn keeping_settings_in(self, config: PathBuf) -> Self {
        Self { settings: Some(Arc::new(set::SettingsFile::new(config))), ..self }
    }

    /// Says in `GET /v1/started` what the daemon was started with.
    #[must_use]
    pub fn started(self, with: model::Started) -> Self {
        Self { started: Some(Arc::new(RwLock::new(with))), ..self }
    }

    /// Says in `GET /v1/status` how the daemon is confined.
    #[must_use]
    pub fn confined(self, confinement: model::Confinement) -> Self {
        Self { confinement: Some(confinement), ..self }
    }

    /// Keeps what `POST /v1/bootstrap` adds over restarts.
    #[must_use]
    pub fn keeping_bootstrap_on(self, shelf: Shelf) -> Self {
        Self { bootstrap: Some(Arc::new(bootstrap::Kept::new(shelf))), ..self }
    }

    /// The identity as it is known now.
    fn identity(&self) -> model::Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn router(self) -> Router {
        let resources = Router::new()
            .merge(networks())
            .route("/version", get(version::get))
            .route("/id", get(identity::get))
            .route("/started", get(started::get))
            .route("/status", get(status::get))
            .route("/peers", get(peers::get))
            .route("/netcheck", get(netcheck::get))
            .route("/relay", get(relay::get))
            .route("/metrics", get(metrics::get))
            .route("/ping", post(ping::post))
            .route("/up", post(state::up))
            .route("/down", post(state::down))
            .route("/set", post(set::post))
            .route("/rekey", post(rekey::post))
            .route("/keys/rotate", post(keys::rotate))
            .route("/disconnect", post(disconnect::post))
            .route("/shutdown", post(shutdown::post))
            .route("/dht/status", get(dht::status))
            .route("/dht/table", get(dht::table))
            .route("/dht/get", post(dht::get))
            .route("/dht/put", post(dht::put))
            .route("/dht/lookup", post(dht::lookup))
            // Lists are larger than every other request; the limit nearest to the resource counts.
            .route("/bootstrap/remove", post(bootstrap::remove))
            .route(
                "/bootstrap",
                get(bootstrap::get).post(bootstrap::post).layer(DefaultBodyLimit::max(bootstrap::BODY_LIMIT)),
            );
        Router::new()
            .nest(PREFIX, resources)
            .fallback(reply::no_such_resource)
            .method_not_allowed_fallback(reply::wrong_method)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(self)
    }
}

/// The resources of networks.
fn networks() -> Router<Service> {
    Router::new()
        .route("/networks", get(networks::get).post(networks::post))
        .route("/networks/leave", post(networks::leave))
        .route("/networks/up", post(networks::up))
        .route("/networks/down", post(networks::down))
        .route("/invites", post(invites::post))
        .route("/invites/list", post(invites::list))
        .route("/invites/cancel", post(invites::cancel))
        .route("/join", post(join::post))
        .route("/requests", post(requests::list))
        .route("/requests/approve", post(requests::approve))
        .route("/requests/deny", post(requests::deny))
        .route("/members", post(members::list))
        .route("/members/revoke", post(members::revoke))
        .route("/lock/status", post(lock::status))
        .route("/lock/log", post(lock::log))
        .route("/lock/sign", post(lock::sign))
        .route("/lock/contest", post(lock::contest))
        .route("/lock/add", post(lock::add))
        .route("/lock/remove", post(lock::remove))
        .route("/lock/disable", post(lock::disable))
        .route("/dns", get(dns::get))
}

/// Answers requests until `stop` completes, then lets the requests under way finish (for at most 5 s).
pub async fn serve(socket: ControlSocket, access: Access, service: Service, stop: impl Future<Output = ()> + Send) {
    connections::serve(&socket, Arc::new(access), service.router(), stop).await;
    drop(socket);
}
