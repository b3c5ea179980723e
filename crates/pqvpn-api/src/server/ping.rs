// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/ping`.

use std::time::Duration;

use axum::{Json, extract::State};
use pqvpn_node::handle::PeerRef;

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    error::ApiError,
    model::{Ping, PingRequest},
};

/// Longest wait a caller can ask for: a forgotten request must not hold a connection for ever.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<PingRequest>,
) -> Result<Json<Ping>, ApiError> {
    let wait = Duration::from_millis(request.timeout_ms).min(MAX_WAIT);
    let reply = service.node.ping(PeerRef(request.peer), wait).await.map_err(because("no pong"))?;
    Ok(Json(reply.into()))
}
