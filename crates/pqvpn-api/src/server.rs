// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon's side of the control API: one file per resource, one task per connection, nothing unbounded.

mod access;
mod connections;
mod disconnect;
mod identity;
mod peers;
mod ping;
mod rekey;
mod reply;
mod set;
mod shutdown;
mod socket;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod version;

use std::{future::Future, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use pqvpn_node::handle::NodeHandle;

pub use self::{
    access::{Access, Caller, OPERATOR_GROUP},
    socket::{ControlSocket, SocketError},
};
use crate::{PREFIX, model};

/// Largest request body in bytes; every request is one small object.
const BODY_LIMIT: usize = 16 * 1024;

/// What the resources need: the node, and the identity facts the node itself does not keep.
#[derive(Debug, Clone)]
pub struct Service {
    node: NodeHandle,
    identity: Arc<model::Identity>,
    settings: Option<Arc<set::SettingsFile>>,
}

impl Service {
    /// Puts the API in front of a node. `identity` is what `GET /v1/id` answers.
    #[must_use]
    pub fn new(node: NodeHandle, identity: model::Identity) -> Self {
        Self { node, identity: Arc::new(identity), settings: None }
    }

    /// Keeps what `POST /v1/set` changes in a configuration file, too.
    #[must_use]
    pub fn keeping_settings_in(self, config: PathBuf) -> Self {
        Self { settings: Some(Arc::new(set::SettingsFile::new(config))), ..self }
    }

    fn router(self) -> Router {
        let resources = Router::new()
            .route("/version", get(version::get))
            .route("/id", get(identity::get))
            .route("/status", get(status::get))
            .route("/peers", get(peers::get))
            .route("/ping", post(ping::post))
            .route("/up", post(state::up))
            .route("/down", post(state::down))
            .route("/set", post(set::post))
            .route("/rekey", post(rekey::post))
            .route("/disconnect", post(disconnect::post))
            .route("/shutdown", post(shutdown::post));
        Router::new()
            .nest(PREFIX, resources)
            .fallback(reply::no_such_resource)
            .method_not_allowed_fallback(reply::wrong_method)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(self)
    }
}

/// Answers requests until `stop` completes, then lets the requests under way finish (for at most 5 s).
pub async fn serve(socket: ControlSocket, access: Access, service: Service, stop: impl Future<Output = ()> + Send) {
    connections::serve(&socket, Arc::new(access), service.router(), stop).await;
    drop(socket);
}
