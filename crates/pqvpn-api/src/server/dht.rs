// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/v1/dht/...`: status, table, get, put, lookup.

use axum::{Json, extract::State};
use data_encoding::HEXLOWER;
use pqvpn_node::{
    dht::{LookupTarget, RecordRef},
    handle::PeerRef,
};
use pqvpn_wire::dht::Point;

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    error::{ApiError, Code},
    model::{DhtFound, DhtGetRequest, DhtGot, DhtLookupRequest, DhtPut, DhtPutRequest, DhtStatus, DhtTable},
};

pub(super) async fn status(State(service): State<Service>) -> Result<Json<DhtStatus>, ApiError> {
    Ok(Json(service.node.dht_status().await.map_err(because("no status of the DHT"))?.into()))
}

pub(super) async fn table(State(service): State<Service>) -> Result<Json<DhtTable>, ApiError> {
    Ok(Json(service.node.dht_table().await.map_err(because("no table"))?.into()))
}

pub(super) async fn get(
    State(service): State<Service>,
    Body(request): Body<DhtGetRequest>,
) -> Result<Json<DhtGot>, ApiError> {
    let what = record(request)?;
    Ok(Json(service.node.dht_get(what).await.map_err(because("no record was looked for"))?.into()))
}

pub(super) async fn put(
    State(service): State<Service>,
    Body(request): Body<DhtPutRequest>,
) -> Result<Json<DhtPut>, ApiError> {
    let DhtPutRequest { name, value, value_hex } = request;
    let value = match (value, value_hex) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(hex)) => HEXLOWER
            .decode(hex.as_bytes())
            .map_err(|_| malformed("nothing was published", "`value_hex` is not lowercase hex digits"))?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(malformed("nothing was published", "a value is `value` or `value_hex`, one of them"));
        }
    };
    Ok(Json(service.node.dht_put(name, value).await.map_err(because("nothing was published"))?.into()))
}

pub(super) async fn lookup(
    State(service): State<Service>,
    Body(request): Body<DhtLookupRequest>,
) -> Result<Json<DhtFound>, ApiError> {
    const WHAT: &str = "nothing was looked up";
    let target = match (request.peer, request.key) {
        (Some(peer), None) => LookupTarget::Peer(PeerRef(peer)),
        (None, Some(key)) => LookupTarget::Point(point(WHAT, &key)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(malformed(WHAT, "a lookup takes `peer` or `key`, one of them"));
        }
    };
    Ok(Json(service.node.dht_lookup(target).await.map_err(because(WHAT))?.into()))
}

fn record(request: DhtGetRequest) -> Result<RecordRef, ApiError> {
    const WHAT: &str = "no record was looked for";
    match (request.owner, request.name, request.key) {
        (Some(owner), None, None) => Ok(RecordRef::Peer(PeerRef(owner))),
        (owner, Some(name), None) => Ok(RecordRef::Value { owner: owner.map(PeerRef), name }),
        (None, None, Some(key)) => Ok(RecordRef::Key(point(WHAT, &key)?)),
        (None, None, None) | (Some(_), None, Some(_)) | (_, Some(_), Some(_)) => {
            Err(malformed(WHAT, "a get takes `owner`, or `name` with or without `owner`, or `key` alone"))
        }
    }
}

fn point(what: &str, text: &str) -> Result<Point, ApiError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Point::from_bytes).ok_or_else(|| malformed(what, "a key has 64 lowercase hex digits"))
}

fn malformed(what: &str, why: &str) -> ApiError {
    ApiError::new(Code::BadRequest, what, why, "`pqvpn dht --help` shows what can be said")
}
