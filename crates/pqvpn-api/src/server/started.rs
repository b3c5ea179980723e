// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/started`.

use std::sync::PoisonError;

use axum::{Json, extract::State};
use pqvpn_node::config;

use super::Service;
use crate::{
    error::{ApiError, Code},
    model::Started,
};

pub(super) async fn get(State(service): State<Service>) -> Result<Json<Started>, ApiError> {
    let started = service.started.as_ref().ok_or_else(|| {
        ApiError::new(Code::NotFound, "nothing is known of the start", "this is no daemon", "ask a daemon")
    })?;
    Ok(Json(started.read().unwrap_or_else(PoisonError::into_inner).clone()))
}

impl Service {
    /// A setting that a running node follows is in force from now on.
    pub(super) fn note_set(&self, key: &str, value: &str) {
        let Some(started) = &self.started else { return };
        let mut started = started.write().unwrap_or_else(PoisonError::into_inner);
        // The node has taken the value, so it is one.
        if let Ok(settings) = config::set(&started.settings, key, value) {
            started.settings = settings;
        }
    }
}
