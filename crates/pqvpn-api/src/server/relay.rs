// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/relay`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{
    error::{ApiError, Code},
    model::Relaying,
};

const WHAT: &str = "nothing is known of what is relayed";

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Relaying>, ApiError> {
    let report = service.node.relaying().await.map_err(because(WHAT))?;
    let busy = || ApiError::new(Code::Failed, WHAT, "the networks are too busy to say", "try again");
    Ok(Json(report.ok_or_else(busy)?.into()))
}
