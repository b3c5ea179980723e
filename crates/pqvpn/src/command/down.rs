// SPDX-License-Identifier: MIT OR Apache-2.0
//! `down`: take the network down; the daemon stays.

use crate::{context::Context, failure::Failure};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let state = context.client()?.down().await?;
    context.output.done(&state, |_| "down; `pqvpn up` brings it back".into());
    Ok(())
}
