// SPDX-License-Identifier: MIT OR Apache-2.0
//! `metrics`: what Prometheus would read at `metrics.listen`, whether or not that is set.

use crate::{context::Context, failure::Failure};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let metrics = context.client()?.metrics().await?;
    context.output.result(&metrics, |_| metrics.to_text());
    Ok(())
}
