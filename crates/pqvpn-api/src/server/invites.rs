// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/invites`: make, list and cancel; a code is in the answer to its making and nowhere else.

use std::time::Duration;

use axum::{Json, extract::State};
use pqvpn_node::membership::{InviteOptions, NetRef};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    SCHEMA,
    error::ApiError,
    model::{Act, CancelRequest, Invite, InviteCreated, InviteRequest, Invites, NetRequest},
};

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<InviteRequest>,
) -> Result<Json<InviteCreated>, ApiError> {
    let InviteRequest { network, expires_s, uses, tags, ephemeral_s, member_expires_s, preapproved, level_cap } =
        request;
    let usual = InviteOptions::default();
    let options = InviteOptions {
        expires: expires_s.map_or(usual.expires, Duration::from_secs),
        uses: uses.unwrap_or(usual.uses),
        tags,
        ephemeral: ephemeral_s.map(Duration::from_secs),
        member_expires: member_expires_s.map(Duration::from_secs),
        preapproved,
        level_cap: level_cap.unwrap_or(usual.level_cap),
    };
    let invite = service.node.invite_create(NetRef(network), options).await;
    Ok(Json(invite.map_err(because("no invite was made"))?.into()))
}

pub(super) async fn list(
    State(service): State<Service>,
    Body(request): Body<NetRequest>,
) -> Result<Json<Invites>, ApiError> {
    let invites = service.node.invite_list(NetRef(request.network)).await.map_err(because("no list of invites"))?;
    Ok(Json(Invites { schema: SCHEMA, invites: invites.into_iter().map(Invite::from).collect() }))
}

pub(super) async fn cancel(
    State(service): State<Service>,
    Body(request): Body<CancelRequest>,
) -> Result<Json<Act>, ApiError> {
    let cancelled = service.node.invite_cancel(NetRef(request.network), request.serial).await;
    Ok(Json(cancelled.map_err(because("the invite was not cancelled"))?.into()))
}
