// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/rekey`.

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

/// Steps the ratchet of the peer's session now.
pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<PeerRequest>,
) -> Result<Json<Done>, ApiError> {
    service.node.rekey(PeerRef(request.peer)).await.map_err(because("no rekey"))?;
    Ok(Json(Done { schema: SCHEMA }))
}
