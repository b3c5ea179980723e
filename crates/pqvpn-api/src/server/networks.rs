// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/networks`: the networks of this node; make, leave, switch on and off.

use axum::{Json, extract::State};
use ipnet::Ipv4Net;
use pqvpn_node::membership::{CreateNetwork, NetRef};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::{ApiError, Code},
    model::{NetCreateRequest, NetRequest, NetworkAnswer, NetworkInfo, Networks},
};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Networks>, ApiError> {
    let networks = service.node.net_list().await.map_err(because("no list of networks"))?;
    Ok(Json(Networks { schema: SCHEMA, networks: networks.into_iter().map(NetworkInfo::from).collect() }))
}

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<NetCreateRequest>,
) -> Result<Json<NetworkAnswer>, ApiError> {
    const WHAT: &str = "no network was made";
    let NetCreateRequest { name, member_name, pool, approval, quorum } = request;
    let pool = pool.map(|text| text.parse::<Ipv4Net>()).transpose().map_err(|error| {
        ApiError::new(
            Code::BadRequest,
            WHAT,
            format!("`pool`: {error}"),
            "a pool is `a.b.c.d/len`, like `10.77.0.0/16`",
        )
    })?;
    let network = CreateNetwork { name, member_name, pool, approval, quorum };
    Ok(Json(service.node.net_create(network).await.map_err(because(WHAT))?.into()))
}

pub(super) async fn leave(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<NetworkAnswer>, ApiError> {
    let left = service.node.net_leave(NetRef(request.network)).await;
    Ok(Json(left.map_err(because("the network was not left"))?.into()))
}

pub(super) async fn up(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<NetworkAnswer>, ApiError> {
    let network = service.node.net_enable(NetRef(request.network), true).await;
    Ok(Json(network.map_err(because("the network is not up"))?.into()))
}

pub(super) async fn down(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<NetworkAnswer>, ApiError> {
    let network = service.node.net_enable(NetRef(request.network), false).await;
    Ok(Json(network.map_err(because("the network is not down"))?.into()))
}
