// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/join`.

use std::time::Duration;

use axum::{Json, extract::State};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    error::ApiError,
    model::{JoinRequest, Joined},
};

/// Longest wait a caller can ask for: a forgotten request must not hold a connection for ever.
const MAX_WAIT: Duration = Duration::from_secs(3600);

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<JoinRequest>,
) -> Result<Json<Joined>, ApiError> {
    let wait = Duration::from_millis(request.timeout_ms).min(MAX_WAIT);
    let joined = service.node.join(request.code, request.name, wait).await;
    Ok(Json(joined.map_err(because("no network was joined"))?.into()))
}
