// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of the rungs in one dial, under virtual time.

use std::future::pending;

use pqvpn_crypto::tls::Refusal;
use tokio::time::Instant as Clock;

use super::*;

const PLAN: Plan = Plan { quic: Some(Duration::from_millis(250)), wss: Some(Duration::from_secs(1)) };

/// Works after so many milliseconds.
async fn works(ms: u64) -> Result<(), LinkError> {
    sleep(Duration::from_millis(ms)).await;
    Ok(())
}

async fn fails(ms: u64, error: LinkError) -> Result<(), LinkError> {
    sleep(Duration::from_millis(ms)).await;
    Err(error)
}

async fn lost() -> Result<(), LinkError> {
    pending().await
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, u128) {
    let start = Clock::now();
    (what.await, start.elapsed().as_millis())
}

fn rung(made: Result<(Rung, ()), LinkError>) -> Option<Rung> {
    made.ok().map(|(rung, ())| rung)
}

#[tokio::test(start_paused = true)]
async fn udp_that_works_is_used_and_nothing_else_is_begun() {
    let untouched = || async { unreachable!("its turn has not come") };
    let (made, ms) = timed(climb(PLAN, works(240), untouched(), untouched())).await;
    assert_eq!((rung(made), ms), (Some(Rung::Udp), 240));
}

#[tokio::test(start_paused = true)]
async fn each_rung_gets_its_turn_while_those_before_go_on() {
    let (made, ms) = timed(climb(PLAN, lost(), works(30), works(0))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Quic), 280));
    let (made, ms) = timed(climb(PLAN, lost(), lost(), works(200))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Wss), 1200));
    let (made, ms) = timed(climb(PLAN, works(1100), lost(), works(200))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Udp), 1100));
    let (made, ms) =
        timed(climb(PLAN, works(3000), fails(0, LinkError::TimedOut), fails(0, LinkError::TimedOut))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Udp), 3000), "UDP may be slow, and the only one");
    let first = Plan { wss: Some(Duration::ZERO), ..PLAN };
    let (made, ms) = timed(climb(first, lost(), lost(), works(90))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Wss), 90));
}

#[tokio::test(start_paused = true)]
async fn who_refuses_by_udp_is_not_asked_otherwise_and_silence_is() {
    let refused = || fails(50, LinkError::RefusedByUs(Refusal::WrongPeerId));
    let (made, ms) = timed(climb(PLAN, refused(), works(0), works(0))).await;
    assert!(matches!(made, Err(LinkError::RefusedByUs(_))));
    assert_eq!(ms, 50);
    let (made, ms) = timed(climb(PLAN, fails(50, LinkError::TimedOut), lost(), works(0))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Wss), 1000));
    let none = Plan::default();
    let (made, ms) = timed(climb(none, fails(50, LinkError::TimedOut), works(0), works(0))).await;
    assert!(matches!(made, Err(LinkError::TimedOut)));
    assert_eq!(ms, 50);
}
