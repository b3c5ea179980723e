// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/version`.

use axum::Json;

use crate::{SCHEMA, model::Version};

pub(super) async fn get() -> Json<Version> {
    Json(Version { schema: SCHEMA, version: env!("CARGO_PKG_VERSION").into() })
}
