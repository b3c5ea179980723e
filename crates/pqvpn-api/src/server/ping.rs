// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/ping`.

use std::time::Duration;

use axum::{Json, extract::State};
use pqvpn_node::{
    handle::{NodeError, PeerRef},
    names::bare,
    snapshot::NetworkSnapshot,
};

use super::{
    Service,
    reply::{Body, because},
};
use crate::{
    error::{ApiError, Code},
    model::{Ping, PingRequest},
};

const WHAT: &str = "no pong";
/// Longest wait a caller can ask for: a forgotten request must not hold a connection for ever.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn post(
    State(service): State<Service>,
    Body(request): Body<PingRequest>,
) -> Result<Json<Ping>, ApiError> {
    let wait = Duration::from_millis(request.timeout_ms).min(MAX_WAIT);
    let peer = request.peer;
    match service.node.ping(PeerRef(peer.clone()), wait).await {
        Ok(reply) => Ok(Json(reply.into())),
        Err(NodeError::UnknownPeer(_)) if is_this_node(&service, &peer).await => {
            let why = format!("{peer:?} is this node itself");
            Err(ApiError::new(Code::UnknownPeer, WHAT, why, "`pqvpn peers` lists the others"))
        }
        Err(error) => Err(because(WHAT)(error)),
    }
}

/// Whether a text names the node that is asked.
async fn is_this_node(service: &Service, text: &str) -> bool {
    let Ok(now) = service.node.snapshot().await else { return false };
    let lower = bare(text).to_ascii_lowercase();
    let in_network = |network: &NetworkSnapshot| {
        let (own, network) = (network.own_name.to_ascii_lowercase(), &network.name);
        lower == own || lower == format!("{own}.{network}")
    };
    lower == now.name.to_ascii_lowercase()
        || lower == now.peer_id.to_string()
        || now.networks.iter().any(in_network)
        || text.parse().is_ok_and(|address| now.addresses.contains(&address))
}
