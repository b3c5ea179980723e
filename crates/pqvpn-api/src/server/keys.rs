// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/keys/rotate`.

use std::sync::PoisonError;

use axum::{Json, extract::State};
use pqvpn_crypto::keystore::Passphrase;
use pqvpn_node::handle::{NodeError, RotateKeys};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    error::ApiError,
    model::{RotateRequest, Rotated},
};

/// Goes on with another key. Whoever asked may go: what was begun is ended.
pub(super) async fn rotate(
    State(service): State<Service>,
    Body(request): Body<RotateRequest>,
) -> Result<Json<Rotated>, ApiError> {
    let passphrase = request.passphrase.map(|secret| Passphrase::new(secret.expose()));
    let rotating = tokio::spawn(async move {
        let report = service.node.rotate_keys(RotateKeys { passphrase }).await?;
        let mut identity = service.identity.write().unwrap_or_else(PoisonError::into_inner);
        identity.peer_id = report.new.to_string();
        identity.fingerprint.clone_from(&report.fingerprint);
        identity.addresses.clone_from(&report.addresses);
        drop(identity);
        Ok(Rotated::from(report))
    });
    let rotated = rotating.await.unwrap_or(Err(NodeError::Stopped));
    Ok(Json(rotated.map_err(because("the key was not rotated"))?))
}
