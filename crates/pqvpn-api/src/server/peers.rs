// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/peers`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{error::ApiError, model::Peers};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Peers>, ApiError> {
    let now = service.node.snapshot().await.map_err(because("no list of peers"))?;
    Ok(Json(now.into()))
}
