// SPDX-License-Identifier: MIT OR Apache-2.0
//! `version`: of this program, and of the daemon when one answers.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::{context::Context, failure::Failure};

/// A daemon that hangs must not make the version hang.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let daemon = match context.client() {
        Ok(client) => timeout(PATIENCE, client.version()).await.ok().and_then(Result::ok).map(|answer| answer.version),
        Err(_no_place) => None,
    };
    let json = json!({"schema": pqvpn_api::SCHEMA, "version": version, "daemon": daemon});
    context.output.result(&json, |_| match &daemon {
        Some(daemon) => format!("pqvpn {version}\ndaemon {daemon}"),
        None => format!("pqvpn {version}"),
    });
    Ok(())
}
