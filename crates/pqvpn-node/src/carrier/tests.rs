// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of the rungs in one dial, under virtual time.

use std::future::pending;

use pqvpn_crypto::tls::Refusal;
use tokio::time::{Instant as Clock, sleep, timeout};

use super::*;
use crate::link::PeerReason;

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
async fn who_is_known_to_refuse_by_udp_is_not_asked_otherwise() {
    let closed = LinkError::Closed { code: 7, reason: String::new() };
    let ours = [Refusal::UnknownPeer, Refusal::NotAdmitted].map(LinkError::RefusedByUs);
    for refusal in ours.into_iter().chain([closed, LinkError::ClosedByUs]) {
        let (made, ms) = timed(climb(PLAN, fails(50, refusal.clone()), works(0), works(0))).await;
        assert_eq!((made.err(), ms), (Some(refusal), 50));
    }
}

#[tokio::test(start_paused = true)]
async fn what_anybody_on_the_way_may_have_said_keeps_no_rung_from_its_turn() {
    let protocol = |by_peer| LinkError::Protocol { code: 1, reason: String::new(), by_peer };
    let refused = [PeerReason::NoCommonProtocol, PeerReason::Busy, PeerReason::NotAccepted, PeerReason::Alert(80)];
    let ours = [Refusal::MalformedHandshake, Refusal::NoCommonSuite, Refusal::NoCommonGroup];
    let errors = refused.map(LinkError::RefusedByPeer).into_iter().chain(ours.map(LinkError::RefusedByUs));
    for error in errors.chain([protocol(true), protocol(false)]) {
        let (made, ms) = timed(climb(PLAN, fails(1, error.clone()), lost(), works(0))).await;
        assert_eq!((rung(made), ms), (Some(Rung::Wss), 1000), "{error}");
        let silent = || fails(0, LinkError::TimedOut);
        let (made, _) = timed(climb(PLAN, fails(1, error.clone()), silent(), silent())).await;
        assert_eq!(made.err(), Some(error), "what is known of it is told");
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_in_the_peer_s_place_does_not_end_the_climb() {
    for another in [Refusal::WrongPeerId, Refusal::UnknownCompressedKey].map(LinkError::RefusedByUs) {
        let answers = || fails(50, another.clone());
        let (made, ms) = timed(climb(PLAN, answers(), works(30), lost())).await;
        assert_eq!((rung(made), ms), (Some(Rung::Quic), 80), "{another}");
        // On every rung of UDP.
        let (made, ms) = timed(climb(PLAN, answers(), answers(), works(200))).await;
        assert_eq!((rung(made), ms), (Some(Rung::Wss), 250), "{another}");
        let silent = || fails(0, LinkError::TimedOut);
        let (made, ms) = timed(climb(PLAN, answers(), silent(), silent())).await;
        assert_eq!((made.err(), ms), (Some(another.clone()), 50), "whoever has the address now, and nobody else");
        let (made, ms) = timed(climb(PLAN, answers(), lost(), lost())).await;
        assert_eq!((made.err(), ms), (Some(another.clone()), 2050), "nor is it waited for for long");
        let (made, ms) = timed(climb(Plan::default(), answers(), works(0), works(0))).await;
        assert_eq!((made.err(), ms), (Some(another.clone()), 50), "where there is no other rung it is told at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nothing_speaks_against_is_told_soon() {
    let protocol = LinkError::Protocol { code: 1, reason: String::new(), by_peer: true };
    for error in [LinkError::RefusedByPeer(PeerReason::NotAccepted), protocol] {
        let (made, ms) = timed(climb(PLAN, fails(1, error.clone()), lost(), lost())).await;
        assert_eq!((made.err(), ms), (Some(error), 4001));
    }
    let busy = LinkError::RefusedByPeer(PeerReason::Busy);
    let untouched = async { unreachable!("it is the same endpoint") };
    let (made, ms) = timed(climb(PLAN, fails(1, busy), untouched, works(2900))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Wss), 3900));
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_by_udp_is_asked_otherwise() {
    let (made, ms) = timed(climb(PLAN, fails(50, LinkError::TimedOut), lost(), works(0))).await;
    assert_eq!((rung(made), ms), (Some(Rung::Wss), 1000));
    let none = Plan::default();
    let (made, ms) = timed(climb(none, fails(50, LinkError::TimedOut), works(0), works(0))).await;
    assert!(matches!(made, Err(LinkError::TimedOut)));
    assert_eq!(ms, 50);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_was_forgotten_half_way_is_begun_once_more() {
    let nth = |outcomes: [(u64, Result<(), LinkError>); 2]| {
        let outcomes = std::cell::RefCell::new(outcomes.into_iter());
        let no_news = Notify::new();
        async move {
            let attempt = || {
                let (ms, outcome) = outcomes.borrow_mut().next().unwrap();
                async move {
                    sleep(Duration::from_millis(ms)).await;
                    outcome
                }
            };
            insist(attempt, &no_news).await
        }
    };
    let silent = || Err(LinkError::TimedOut);
    let refused = || Err(LinkError::RefusedByUs(Refusal::WrongPeerId));
    for (outcomes, expected, ms) in [
        ([(4900, Ok(())), (0, refused())], true, 4900),
        ([(15_000, silent()), (30, Ok(()))], true, 5030),
        ([(5100, Ok(())), (15_000, silent())], true, 5100),
        ([(15_000, silent()), (11_000, Ok(()))], true, 16_000),
        ([(15_000, silent()), (15_000, silent())], false, 20_000),
        ([(15_000, silent()), (10, refused())], false, 5010),
        ([(15_000, silent()), (10, Err(LinkError::RefusedByPeer(PeerReason::Busy)))], false, 15_000),
        ([(100, silent()), (0, Ok(()))], false, 100),
    ] {
        let (made, took) = timed(nth(outcomes)).await;
        assert_eq!((made.is_ok(), took), (expected, ms));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_of_another_network_is_begun_once_more_at_once() {
    let nowhere = Arc::new(fake::Nowhere::default());
    let carriers = Carriers::of_tests(Arc::clone(&nowhere) as Arc<dyn Endpoint>);
    let dials = || std::mem::take(&mut *nowhere.0.lock().unwrap()).len();
    let changes = async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(dials(), 1);
        carriers.on_network(clock::now(), None, true);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(dials(), 1);
    };
    tokio::join!(dialling(&carriers, 300), changes);
}

fn dialling(carriers: &Carriers, ms: u64) -> impl Future<Output = ()> {
    let dial = carriers.connect("8.8.4.4:41641".parse().unwrap(), PeerId::from_bytes([1; 32]), None);
    async move { assert!(timeout(Duration::from_millis(ms), dial).await.is_err(), "nobody is reached") }
}

#[tokio::test(start_paused = true)]
async fn udp_port_443_that_was_given_up_after_a_while_has_failed() {
    let nowhere = Arc::new(fake::Nowhere::default());
    let carriers = Carriers::of_tests(Arc::clone(&nowhere) as Arc<dyn Endpoint>);
    dialling(&carriers, 400).await;
    assert_eq!(std::mem::take(&mut *nowhere.0.lock().unwrap()).len(), 2, "its own port, and 443");
    dialling(&carriers, 990).await;
    assert_eq!(std::mem::take(&mut *nowhere.0.lock().unwrap()).len(), 2, "the first was given up too soon to tell");
    dialling(&carriers, 990).await;
    assert_eq!(nowhere.0.lock().unwrap().len(), 1, "it rests");
}

#[tokio::test(start_paused = true)]
async fn whom_strangers_name_is_dialled_by_udp_alone() {
    let nowhere = Arc::new(fake::Nowhere::default());
    let carriers = Carriers::of_tests(Arc::clone(&nowhere) as Arc<dyn Endpoint>);
    dialling(&carriers.for_strangers(), 5000).await;
    assert_eq!(*nowhere.0.lock().unwrap(), ["8.8.4.4:41641".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn whom_strangers_name_may_be_anybody_by_udp_and_has_its_name_where_a_carrier_is_needed() {
    let nowhere = Arc::new(fake::Nowhere::default());
    let carriers = Carriers::of_tests(Arc::clone(&nowhere) as Arc<dyn Endpoint>).for_strangers();
    let at: SocketAddr = "8.8.4.4:41641".parse().unwrap();
    let dialled = || async {
        let dial = carriers.connect_named(at, PeerId::from_bytes([1; 32]));
        assert!(timeout(Duration::from_millis(100), dial).await.is_err(), "nobody is reached");
        [&nowhere.0, &nowhere.1].map(|asked| std::mem::take(&mut *asked.lock().unwrap()))
    };
    let meets_anybody = || carriers.meets_anybody(at, PeerId::from_bytes([1; 32]));
    assert!(meets_anybody());
    assert_eq!(dialled().await, [vec![], vec![at]]);
    lock(&carriers.0.ladder).on_worked(clock::now(), Rung::Wss, at);
    assert!(!meets_anybody());
    assert_eq!(dialled().await, [vec![at], vec![]]);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_dialled_once_more_unless_strangers_name_it() {
    for (named_by_strangers, times) in [(false, 2), (true, 1)] {
        let nowhere = Arc::new(fake::Nowhere::default());
        let carriers = Carriers::of_tests(Arc::clone(&nowhere) as Arc<dyn Endpoint>);
        let carriers = if named_by_strangers { carriers.for_strangers() } else { carriers };
        dialling(&carriers, 14_000).await;
        let at = "8.8.4.4:41641".parse().unwrap();
        assert_eq!(nowhere.0.lock().unwrap().iter().filter(|dialled| **dialled == at).count(), times);
    }
}
