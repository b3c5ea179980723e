// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/up` and `POST /v1/down`.

use axum::{Json, extract};

use super::{Service, reply::because};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{NodeState, State},
};

pub(super) async fn up(extract::State(service): extract::State<Service>) -> Result<Json<State>, ApiError> {
    service.node.up().await.map_err(because("the node is not up"))?;
    Ok(Json(State { schema: SCHEMA, state: NodeState::Up }))
}

pub(super) async fn down(extract::State(service): extract::State<Service>) -> Result<Json<State>, ApiError> {
    service.node.down().await.map_err(because("the node is not down"))?;
    Ok(Json(State { schema: SCHEMA, state: NodeState::Down }))
}
