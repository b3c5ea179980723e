// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/netcheck`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{error::ApiError, model::NetCheck};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<NetCheck>, ApiError> {
    Ok(Json(service.node.netcheck().await.map_err(because("the network was not looked at"))?.into()))
}
