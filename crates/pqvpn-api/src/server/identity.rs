// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/id`.

use axum::{Json, extract::State};

use super::{Service, reply::because};
use crate::{error::ApiError, model::Identity};

/// The identity with the addresses the node really has.
pub(super) async fn get(State(service): State<Service>) -> Result<Json<Identity>, ApiError> {
    let now = service.node.snapshot().await.map_err(because("no identity"))?;
    let known = service.identity();
    let addresses = if now.addresses.is_empty() { known.addresses.clone() } else { now.addresses };
    Ok(Json(Identity { addresses, name: now.name, ..known }))
}
