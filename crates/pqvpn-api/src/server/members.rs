// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/members`: who is in a network, and throwing somebody out.

use axum::{Json, extract::State};
use pqvpn_node::{handle::PeerRef, membership::NetRef};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{Member, Members, NetRequest, RevokeRequest, Revoked},
};

pub(super) async fn list(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<Members>, ApiError> {
    let members = service.node.members(NetRef(request.network)).await.map_err(because("no list of members"))?;
    Ok(Json(Members { schema: SCHEMA, members: members.into_iter().map(Member::from).collect() }))
}

pub(super) async fn revoke(
    State(service): State<Service>,
    Body(request): Body<RevokeRequest>,
) -> Result<Json<Revoked>, ApiError> {
    let revoked = service.node.revoke(NetRef(request.network), PeerRef(request.who), request.reason).await;
    Ok(Json(revoked.map_err(because("nobody was revoked"))?.into()))
}
