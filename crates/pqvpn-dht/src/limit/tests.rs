// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rates hold, bounds hold, and honest use passes.

use super::*;
use crate::rules::fixture::{at, peer};

fn host(subnet: u8, host: u8) -> IpAddr {
    IpAddr::from([8, 8, subnet, host])
}

/// Requests that pass when one is tried every `step_ms`, for `ms` in all.
fn passed(limiter: &mut RateLimiter, ms: u64, step_ms: usize, who: impl Fn(u64) -> (PeerId, IpAddr)) -> u64 {
    (0..ms)
        .step_by(step_ms)
        .map(|t| {
            let (peer, from) = who(t);
            u64::from(limiter.check(at(t), &peer, from, 1.0).is_ok())
        })
        .sum()
}

#[test]
fn one_peer_has_its_burst_and_then_its_rate() {
    let mut limiter = RateLimiter::default();
    let passed = passed(&mut limiter, 10_000, 1, |_| (peer(1), host(0, 1)));
    assert!((159..=161).contains(&passed), "60 + 10 s x 10/s, not {passed}");
}

#[test]
fn silence_is_not_saved_up_beyond_the_burst() {
    let mut limiter = RateLimiter::default();
    limiter.check(at(0), &peer(1), host(0, 1), 1.0).unwrap();
    let hour = 3_600_000;
    let count = (0..1000).filter(|_| limiter.check(at(hour), &peer(1), host(0, 1), 1.0).is_ok()).count();
    assert_eq!(count, 60);
}

#[test]
fn fresh_peer_ids_do_not_get_a_subnet_more_than_its_share() {
    let mut limiter = RateLimiter::default();
    let count = passed(&mut limiter, 10_000, 1, |t| (peer(t as u32), host(0, t as u8)));
    assert!((599..=601).contains(&count), "200 + 10 s x 40/s, not {count}");
    let count = passed(&mut RateLimiter::default(), 1000, 1, |t| (peer(t as u32), IpAddr::from([10, 0, 0, t as u8])));
    assert_eq!(count, 1000, "private addresses are counted alone");
}

#[test]
fn who_is_refused_is_told_when_it_passes_and_then_it_does() {
    let mut limiter = RateLimiter::default();
    for _ in 0..60 {
        limiter.check(at(0), &peer(1), host(0, 1), 1.0).unwrap();
    }
    let limited = limiter.check(at(0), &peer(1), host(0, 1), 1.0).unwrap_err();
    assert_eq!((limited.attack(), limited.retry_ms()), (Attack::RatePeer, 100));
    assert!(limiter.check(at(99), &peer(1), host(0, 1), 1.0).is_err());
    assert_eq!(limiter.check(at(u64::from(limited.retry_ms())), &peer(1), host(0, 1), 1.0), Ok(()));
    let store = limiter.check(at(100), &peer(1), host(0, 1), 4.0).unwrap_err();
    assert_eq!(store.retry(), Duration::from_millis(400), "a store waits for its cost");
}

#[test]
fn a_refused_request_is_charged_to_nobody() {
    let mut limiter = RateLimiter::default();
    for _ in 0..1000 {
        let _refused_after_60 = limiter.check(at(0), &peer(1), host(0, 1), 1.0);
    }
    let others = (2..1000).filter(|n| limiter.check(at(0), &peer(*n), host(0, 2), 1.0).is_ok()).count();
    assert_eq!(others, 140, "the subnet has 200 - 60 left");
    let limited = limiter.check(at(0), &peer(5000), host(0, 2), 1.0).unwrap_err();
    assert_eq!(limited.attack(), Attack::RateSubnet);
    assert_eq!(limiter.check(at(0), &peer(5000), host(1, 2), 60.0), Ok(()), "its own bucket is still full");
}

#[test]
fn a_cost_above_the_burst_passes_once_the_bucket_is_full_and_time_never_runs_backwards() {
    let mut limiter = RateLimiter::default();
    assert_eq!(limiter.check(at(0), &peer(1), host(0, 1), 61.0), Ok(()));
    assert!(limiter.check(at(5999), &peer(1), host(0, 1), 61.0).is_err());
    assert_eq!(limiter.check(at(6000), &peer(1), host(0, 1), 61.0), Ok(()));
    assert!(limiter.check(at(0), &peer(1), host(0, 1), 1.0).is_err());
    let rate = Rate { burst: 1.0, per_second: 0.0 };
    let mut bucket = Bucket::full(&rate, Duration::ZERO);
    bucket.take(&rate, 1.0);
    assert_eq!(bucket.wait(&rate, Duration::from_secs(9), 1.0), Duration::MAX);
}

#[test]
fn the_memory_of_a_limiter_is_bounded_and_forgetting_is_counted() {
    let mut limiter = RateLimiter::new(LimitConfig { remembered: 64, ..LimitConfig::default() });
    for n in 0..10_000 {
        let _maybe_limited = limiter.check(at(0), &peer(n), host((n >> 8) as u8, n as u8), 1.0);
        assert!(limiter.peers.len() <= 64 && limiter.subnets.len() <= 64);
    }
    assert!(limiter.take_forgotten() >= 10_000 - 64);
    assert_eq!(limiter.take_forgotten(), 0);
}

#[test]
fn a_lookup_of_every_neighbour_at_once_passes() {
    // 100 nodes behind 50 /24 start at the same moment: 2 lookups each, at most 3 requests of each to one node.
    let mut limiter = RateLimiter::default();
    for n in 0..600_u32 {
        let from = host((n % 50) as u8, (n % 100) as u8);
        assert_eq!(limiter.check(at(0), &peer(n % 100), from, 1.0), Ok(()));
    }
}

#[test]
fn an_address_is_dialled_once_a_minute_on_anothers_word() {
    let mut dials = DialLimiter::default();
    let address: SocketAddr = "8.8.8.8:4433".parse().unwrap();
    assert!(dials.allow(at(0), &peer(1), address));
    assert!(!dials.allow(at(59_999), &peer(1), address));
    assert!(
        !dials.allow(at(1), &peer(2), "[::ffff:8.8.8.8]:4433".parse().unwrap()),
        "the same, written in another way"
    );
    assert!(dials.allow(at(60_000), &peer(2), address));
    assert!(!dials.allow(at(60_001), &peer(1), address));
}

#[test]
fn whoever_answers_to_its_name_may_be_dialled_again() {
    let mut dials = DialLimiter::default();
    let (honest, address): (_, SocketAddr) = (peer(1), "8.8.8.8:4433".parse().unwrap());
    assert!(dials.allow(at(0), &honest, address));
    assert!(!dials.allow(at(1), &honest, address), "nobody knows yet who is there");
    dials.met(honest, "[::ffff:8.8.8.8]:4433".parse().unwrap());
    assert!(dials.allow(at(2), &honest, address));
    let silent = |dials: &mut DialLimiter, ms| dials.allow(at(ms), &honest, address);
    assert!(!silent(&mut dials, 15_001) && silent(&mut dials, 15_002), "silent now, but known");
    dials = DialLimiter::default();
    dials.met(honest, address);
    let again = (3..1000).filter(|ms| {
        dials.met(honest, address);
        dials.allow(at(*ms), &honest, address)
    });
    assert_eq!(again.count(), 8, "of one host still eight at once");
}

/// Names whom a liar makes up.
const MADE_UP: std::ops::Range<u32> = 1000..2000;

#[test]
fn a_node_is_reached_at_an_address_that_a_thousand_made_up_names_are_given_too() {
    for there in ["8.8.8.8:4433", "10.0.0.8:4433"] {
        let (mut dials, honest, address) = (DialLimiter::default(), peer(1), there.parse().unwrap());
        let (mut lookups, mut made) = (0, 0);
        // The liar's names come first in each, and go on between them.
        for ms in 0..120_000_u64 {
            for _ in 0..2 {
                let name = MADE_UP.start + (ms as u32 * 7) % MADE_UP.len() as u32;
                if dials.allow(at(ms), &peer(name), address) {
                    made += 1;
                    // Who answers there is who is there.
                    dials.met(honest, address);
                }
            }
            if ms % 10_000 == 1 {
                lookups += 1;
                assert!(dials.allow(at(ms), &honest, address), "lookup {lookups} at {there}");
                dials.met(honest, address);
            }
        }
        assert_eq!((lookups, made), (12, 2), "once a minute is enough of other names");
    }
}

#[test]
fn a_victim_whom_nobody_knows_is_dialled_once_a_minute_by_a_thousand_names() {
    for there in ["8.8.8.8:53", "10.0.0.8:53"] {
        let mut dials = DialLimiter::default();
        let name = |ms: u64| peer(MADE_UP.start + ms as u32 % MADE_UP.len() as u32);
        let count = (0..600_000).filter(|ms| dials.allow(at(*ms), &name(*ms), there.parse().unwrap())).count();
        assert_eq!(count, 10, "{there}");
    }
}

#[test]
fn who_fell_silent_is_not_dialled_more_often_for_the_names_others_make_up_there() {
    let (mut dials, honest, address) = (DialLimiter::default(), peer(1), "10.0.0.8:4433".parse().unwrap());
    dials.met(honest, address);
    let name =
        |ms: u64| if ms.is_multiple_of(2) { honest } else { peer(MADE_UP.start + ms as u32 % MADE_UP.len() as u32) };
    let count = (0..600_000).filter(|ms| dials.allow(at(*ms), &name(*ms), address)).count();
    assert_eq!(count, 40, "every 15 s");
}

#[test]
fn who_took_another_s_place_is_not_kept_away_by_the_name_of_the_other() {
    for there in ["8.8.8.8:4433", "10.0.0.8:4433"] {
        let (mut dials, [before, now], address) = (DialLimiter::default(), [1, 2].map(peer), there.parse().unwrap());
        dials.met(before, address);
        assert!(dials.allow(at(0), &before, address) && !dials.allow(at(1), &now, address));
        dials.met_another(&before, address);
        assert!(!dials.is_met(&before, address));
        assert!(dials.allow(at(2), &now, address), "{there}");
        dials.met(now, address);
        assert!(!dials.allow(at(3), &before, address), "a name as any other");
        assert!(dials.allow(at(4), &now, address));
        dials.met_another(&before, address);
        assert!(dials.is_met(&now, address) && dials.allow(at(5), &now, address), "somebody answered");
    }
}

#[test]
fn names_of_who_is_not_there_any_more_are_dialled_no_more_often_than_others() {
    let (mut dials, address): (_, SocketAddr) = (DialLimiter::default(), "10.0.0.8:4433".parse().unwrap());
    dials.met(peer(1), address);
    let mut count = 0;
    for ms in 0..600_000_u64 {
        let name = peer(1 + ms as u32 % 3);
        if dials.allow(at(ms), &name, address) {
            count += 1;
            dials.met_another(&name, address);
        }
    }
    assert_eq!(count, 1 + 10, "once for whom was met, then once a minute for all");
}

#[test]
fn a_victim_is_not_dialled_on_all_its_ports() {
    let mut dials = DialLimiter::default();
    let on = |a, port| SocketAddr::from(([a, 8, 8, 8], port));
    let ports = (1..=60_000).filter(|port| dials.allow(at(u64::from(*port)), &peer(1), on(8, *port))).count();
    assert_eq!(ports, 6 + 7, "a burst, and 8 a minute");
    let ports = (1..=1000).filter(|port| dials.allow(at(0), &peer(1), on(10, *port))).count();
    assert_eq!(ports, 1000, "a private address is not somebody else's");
}

#[test]
fn ports_made_up_at_a_host_leave_dials_to_who_was_met_there() {
    let mut dials = DialLimiter::default();
    let on = |port| SocketAddr::from(([8, 8, 8, 8], port));
    dials.met(peer(1), on(7));
    let made_up = (1000..=60_000).filter(|port| dials.allow(at(0), &peer(2), on(*port))).count();
    assert_eq!(made_up, 6);
    for ms in 0..2 {
        assert!(dials.allow(at(ms), &peer(1), on(7)), "two of the eight are its own");
        dials.met(peer(1), on(7));
    }
    assert!(!dials.allow(at(3), &peer(1), on(7)), "and eight at once is all there is");
}

#[test]
fn who_took_another_s_place_is_met_there_and_the_other_no_more() {
    let (mut dials, address): (_, SocketAddr) = (DialLimiter::default(), "10.0.0.8:4433".parse().unwrap());
    dials.met(peer(1), address);
    assert!(dials.allow(at(0), &peer(2), address), "nobody was asked of late");
    dials.met(peer(2), address);
    assert!(dials.is_met(&peer(2), address) && !dials.is_met(&peer(1), address));
    assert!(!dials.allow(at(1), &peer(1), address) && dials.allow(at(1), &peer(2), address));
}

#[test]
fn the_memory_of_dials_is_bounded() {
    let mut dials = DialLimiter::default();
    for n in 0..40_000_u32 {
        dials.allow(at(0), &peer(1), SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0900_0000 + n), 1)));
        assert!(dials.addresses.len() <= DIALS_REMEMBERED && dials.hosts.len() <= DIALS_REMEMBERED);
    }
    assert!(dials.take_forgotten() > 0);
}

#[test]
fn generations_keep_what_is_used_and_forget_the_rest() {
    let mut map = Generations::new(4);
    for key in 0..100 {
        *map.entry(key, || 0) += 1;
        *map.entry(1000, || 7) += 1;
        assert!(map.len() <= 4);
    }
    assert_eq!(map.get(&1000), Some(&107), "in use all the time");
    assert_eq!(map.get(&10), None);
    assert_eq!(map.remove(&1000), Some(107));
    assert_eq!(map.get(&1000), None);
}

#[test]
fn what_makes_a_node_work_costs_more() {
    let plain = cost(&Request::Ping);
    assert!(cost(&Request::Exchange) > plain);
    assert!(cost(&Request::Facts { after: 0 }) > plain);
    let record = crate::rules::fixture::signed(crate::rules::fixture::peer_draft(peer(1), 1));
    let store = Request::Store { record, token: pqvpn_wire::dht::Token([0; 16]), cache: false };
    assert!(cost(&store) > plain);
}
