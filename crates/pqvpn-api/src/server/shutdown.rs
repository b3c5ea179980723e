// SPDX-License-Identifier: MIT OR Apache-2.0
//! `POST /v1/shutdown`.

use axum::{Json, extract::State};

use super::Service;
use crate::{SCHEMA, model::Done};

/// Stops the node and answers once the host is as it was before; the daemon ends after this answer.
pub(super) async fn post(State(service): State<Service>) -> Json<Done> {
    service.node.shutdown().await;
    Json(Done { schema: SCHEMA })
}
