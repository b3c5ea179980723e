// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/disconnect`.

use axum::{Json, extract::State};
use pqvpn_node::handle::PeerRef;

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{Done, PeerRequest},
};

/// Ends the peer's session; the next packet makes a new one.
pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<PeerRequest>,
) -> Result<Json<Done>, ApiError> {
    service.node.disconnect(PeerRef(request.peer)).await.map_err(because("still connected"))?;
    Ok(Json(Done { schema: SCHEMA }))
}
