// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/lock/...`: who may sign for a network, what was signed, and its end.

use axum::{Json, extract::State};
use pqvpn_node::{handle::PeerRef, membership::NetRef};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{
        Act, ContestRequest, DisableRequest, Lock, LockLog, LockLogRequest, NetRequest, SignRequest, Statement,
        WhoRequest,
    },
};

pub(super) async fn status(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<Lock>, ApiError> {
    let lock = service.node.lock_status(NetRef(request.network)).await;
    Ok(Json(lock.map_err(because("no status of the lock"))?.into()))
}

pub(super) async fn log(
    State(service): State<Service>,
    Body(request): Body<LockLogRequest>,
) -> Result<Json<LockLog>, ApiError> {
    let log = service.node.lock_log(NetRef(request.network), request.limit).await.map_err(because("no log"))?;
    Ok(Json(LockLog { schema: SCHEMA, statements: log.into_iter().map(Statement::from).collect() }))
}

pub(super) async fn sign(
    State(service): State<Service>,
    Body(request): Body<SignRequest>,
) -> Result<Json<Act>, ApiError> {
    let act = service.node.lock_sign(NetRef(request.network), request.statement).await;
    Ok(Json(act.map_err(because("nothing was signed"))?.into()))
}

pub(super) async fn contest(
    State(service): State<Service>,
    Body(request): Body<ContestRequest>,
) -> Result<Json<Act>, ApiError> {
    let ContestRequest { network, statements, who } = request;
    let act = service.node.lock_contest(NetRef(network), statements, who.map(PeerRef)).await;
    Ok(Json(act.map_err(because("nothing was signed"))?.into()))
}

pub(super) async fn add(
    State(service): State<Service>,
    Body(request): Body<WhoRequest>,
) -> Result<Json<Act>, ApiError> {
    let act = service.node.admin_add(NetRef(request.network), PeerRef(request.who)).await;
    Ok(Json(act.map_err(because("no admin was added"))?.into()))
}

pub(super) async fn remove(
    State(service): State<Service>,
    Body(request): Body<WhoRequest>,
) -> Result<Json<Act>, ApiError> {
    let act = service.node.admin_remove(NetRef(request.network), PeerRef(request.who)).await;
    Ok(Json(act.map_err(because("no admin was removed"))?.into()))
}

pub(super) async fn disable(
    State(service): State<Service>,
    Body(request): Body<DisableRequest>,
) -> Result<Json<Act>, ApiError> {
    let act = service.node.lock_disable(NetRef(request.network), request.secret).await;
    Ok(Json(act.map_err(because("the network was not disabled"))?.into()))
}
