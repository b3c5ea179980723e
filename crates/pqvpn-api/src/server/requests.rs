// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/requests`: who waits to be let in, and what becomes of them.

use axum::{Json, extract::State};
use pqvpn_node::{handle::PeerRef, membership::NetRef};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{Approved, Denied, NetRequest, Pending, Requests, WhoRequest},
};

pub(super) async fn list(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<Requests>, ApiError> {
    let waiting = service.node.join_requests(NetRef(request.network)).await.map_err(because("no list of requests"))?;
    Ok(Json(Requests { schema: SCHEMA, requests: waiting.into_iter().map(Pending::from).collect() }))
}

pub(super) async fn approve(
    State(service): State<Service>,
    Body(request): Body<WhoRequest>,
) -> Result<Json<Approved>, ApiError> {
    let approved = service.node.approve(NetRef(request.network), PeerRef(request.who)).await;
    Ok(Json(approved.map_err(because("nobody was let in"))?.into()))
}

pub(super) async fn deny(
    State(service): State<Service>,
    Body(request): Body<WhoRequest>,
) -> Result<Json<Denied>, ApiError> {
    let denied = service.node.deny(NetRef(request.network), PeerRef(request.who)).await;
    Ok(Json(denied.map_err(because("nobody was turned away"))?.into()))
}
