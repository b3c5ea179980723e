// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/status`.

use std::sync::PoisonError;

use axum::{Json, extract::State};
use pqvpn_node::handle::NodeError;

use super::{Service, reply::because};
use crate::{
    error::ApiError,
    model::{HealthLevel, Status},
};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Status>, ApiError> {
    Ok(Json(service.status().await.map_err(because("no status"))?))
}

impl Service {
    /// The node at this moment, with what the exporter has to say.
    pub(super) async fn status(&self) -> Result<Status, NodeError> {
        let mut status = Status::from(self.node.snapshot().await?);
        status.confinement.clone_from(&self.confinement);
        // The node shares this runtime, all but its links.
        status.tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() + pqvpn_node::link::tasks();
        status.allocated_bytes = pqvpn_node::allocated();
        if let Some(trouble) = self.exporting.read().unwrap_or_else(PoisonError::into_inner).clone() {
            // A warning: after what is worse.
            let at = status.health.iter().position(|item| item.level == HealthLevel::Info);
            status.health.insert(at.unwrap_or(status.health.len()), trouble);
        }
        Ok(status)
    }
}
