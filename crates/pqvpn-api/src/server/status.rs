// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/status`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{error::ApiError, model::Status};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Status>, ApiError> {
    let now = service.node.snapshot().await.map_err(because("no status"))?;
    Ok(Json(now.into()))
}
