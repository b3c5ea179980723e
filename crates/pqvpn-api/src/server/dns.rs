// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/dns`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{error::ApiError, model::Dns};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Dns>, ApiError> {
    Ok(Json(service.node.dns_status().await.map_err(because("no status of the names"))?.into()))
}
