// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several ways to one goal, each with a head start over the next (RFC 8305).

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

/// Head start of each attempt over the next (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// The attempts, each of which begins when its turn comes.
pub(crate) fn staggered<'a, T: 'a>(
    attempts: impl Iterator<Item = BoxFuture<'a, T>>,
) -> FuturesUnordered<BoxFuture<'a, T>> {
    let in_turn = attempts.enumerate().map(|(position, attempt)| {
        async move {
            sleep(STAGGER.saturating_mul(u32::try_from(position).unwrap_or(u32::MAX))).await;
            attempt.await
        }
        .boxed()
    });
    in_turn.collect()
}

/// Runs the attempts, staggered; those still under way are dropped when one has worked.
///
/// # Errors
/// `none` if there is no attempt; else the failure that `replaces` says is to be kept, of the one so far and a new one.
pub(crate) async fn race<'a, T: 'a, E: 'a>(
    attempts: impl Iterator<Item = BoxFuture<'a, Result<T, E>>>,
    none: E,
    replaces: impl Fn(&E, &E) -> bool,
) -> Result<T, E> {
    let mut running = staggered(attempts);
    let mut worst = none;
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(reached) => return Ok(reached),
            Err(error) if replaces(&worst, &error) => worst = error,
            Err(_) => {}
        }
    }
    Err(worst)
}
