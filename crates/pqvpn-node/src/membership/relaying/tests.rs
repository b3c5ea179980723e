// SPDX-License-Identifier: MIT OR Apache-2.0
//! The books of relaying against a data plane that only writes down.

use std::{collections::BTreeMap, sync::Mutex};

use super::*;

#[derive(Default)]
pub(in crate::membership) struct Written {
    ways: Mutex<BTreeMap<u64, String>>,
    forwards: Mutex<BTreeMap<u64, (SocketAddr, SocketAddr, u64)>>,
    limits: Mutex<BTreeMap<u64, Arc<ForwardLimit>>>,
}

impl Forwarder for Written {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        self.ways.lock().unwrap().insert(id.0, format!("{way:?}"));
        Ok(())
    }

    fn remove_way(&self, id: WayId) {
        self.ways.lock().unwrap().remove(&id.0);
    }

    fn set_forward(&self, channel: u64, forward: Forward) -> Result<(), WayError> {
        self.limits.lock().unwrap().insert(channel, Arc::clone(&forward.limit));
        self.forwards.lock().unwrap().insert(channel, (forward.from, forward.to, forward.out_channel));
        Ok(())
    }

    fn remove_forward(&self, channel: u64) {
        self.forwards.lock().unwrap().remove(&channel);
    }

    fn forward_stats(&self, channel: u64) -> Option<ForwardStats> {
        let bytes = if self.forwards.lock().unwrap().contains_key(&channel) { 100 } else { return None };
        Some(ForwardStats { packets: 1, bytes, ..ForwardStats::default() })
    }
}

const HOME: NetworkId = NetworkId::from_bytes([1; 32]);

fn peer(n: u16) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 41641))
}

fn channel(n: u64) -> Channel {
    Channel::new(n).unwrap()
}

fn counter() -> impl FnMut() -> u64 {
    let mut next = 100;
    move || {
        next += 1;
        next
    }
}

fn books(willing: Willing) -> (Relaying, Arc<Written>) {
    let written = Arc::new(Written::default());
    (Relaying::new(Arc::clone(&written) as Arc<dyn Forwarder>, willing), written)
}

fn everybody(_: &NetworkId, _: &PeerId) -> bool {
    true
}

#[test]
fn a_pair_is_forwarded_both_ways_and_ends_when_nobody_asks_again() {
    let now = Instant::now();
    let (mut books, written) = books(Willing::default());
    let plan = books.plan(HOME, peer(1), channel(11), peer(2), counter()).unwrap();
    books.open(now, plan, channel(22), at(1), at(2)).unwrap();
    let (ra, rb) = (plan.asker_sends.get(), plan.other_sends.get());
    let expected = BTreeMap::from([(ra, (at(1), at(2), 22)), (rb, (at(2), at(1), 11))]);
    assert_eq!(*written.forwards.lock().unwrap(), expected);
    books.keep_up(now + LASTS - Duration::from_secs(1), everybody);
    assert_eq!(written.forwards.lock().unwrap().len(), 2);
    books.keep_up(now + LASTS, everybody);
    assert!(written.forwards.lock().unwrap().is_empty());
}

#[test]
fn the_same_pair_again_keeps_its_channels() {
    let now = Instant::now();
    let (mut books, written) = books(Willing::default());
    let mut random = counter();
    let first = books.plan(HOME, peer(1), channel(11), peer(2), &mut random).unwrap();
    books.open(now, first, channel(22), at(1), at(2)).unwrap();
    let again = books.plan(HOME, peer(1), channel(12), peer(2), &mut random).unwrap();
    assert_eq!((again.asker_sends, again.other_sends), (first.asker_sends, first.other_sends));
    books.open(now + LASTS / 2, again, channel(22), at(1), at(2)).unwrap();
    assert_eq!(written.forwards.lock().unwrap()[&first.other_sends.get()], (at(2), at(1), 12));
    books.keep_up(now + LASTS, everybody);
    assert_eq!(written.forwards.lock().unwrap().len(), 2, "asked again in between");
}

#[test]
fn two_requests_for_one_new_pair_leave_one_pair_of_forwards() {
    let now = Instant::now();
    let (mut books, written) = books(Willing::default());
    let mut random = counter();
    let first = books.plan(HOME, peer(1), channel(11), peer(2), &mut random).unwrap();
    let second = books.plan(HOME, peer(1), channel(11), peer(2), &mut random).unwrap();
    books.open(now, first, channel(22), at(1), at(2)).unwrap();
    books.open(now, second, channel(22), at(1), at(2)).unwrap();
    let left: Vec<u64> = written.forwards.lock().unwrap().keys().copied().collect();
    assert_eq!(left, [second.asker_sends.get(), second.other_sends.get()]);
}

#[test]
fn asking_again_for_a_way_does_not_hold_it() {
    let start = Instant::now();
    let (mut books, written) = books(Willing::default());
    let takes = books.channel(Instant::now(), &peer(5), &peer(2), counter()).unwrap();
    let whose = (HOME, peer(5), peer(2));
    let mut now = start;
    books.set_way(now, whose, at(5), takes, channel(50), true, 7).unwrap();
    for _ in 0..20 {
        now += REFRESH;
        if !books.keep_up(now, everybody).is_empty() {
            books.set_way(now, whose, at(5), takes, channel(50), true, 7).unwrap();
        }
    }
    assert!(written.ways.lock().unwrap().is_empty(), "nobody has used it for a quarter of an hour");
}

#[test]
fn who_moved_is_followed() {
    let (mut books, written) = books(Willing::default());
    let plan = books.plan(HOME, peer(1), channel(11), peer(2), counter()).unwrap();
    books.open(Instant::now(), plan, channel(22), at(1), at(2)).unwrap();
    books.follow(|who| Some(if *who == peer(2) { at(9) } else { at(1) }));
    let forwards = written.forwards.lock().unwrap();
    assert_eq!(forwards[&plan.asker_sends.get()], (at(1), at(9), 22));
    assert_eq!(forwards[&plan.other_sends.get()], (at(9), at(1), 11));
}

#[test]
fn nothing_is_forwarded_for_who_is_no_member_any_more() {
    let now = Instant::now();
    for revoked in [peer(1), peer(2)] {
        let (mut books, written) = books(Willing::default());
        let plan = books.plan(HOME, peer(1), channel(11), peer(2), counter()).unwrap();
        books.open(now, plan, channel(22), at(1), at(2)).unwrap();
        books.keep_up(now, |_, who| *who != revoked);
        assert!(written.forwards.lock().unwrap().is_empty());
    }
}

#[test]
fn one_member_gets_a_bounded_number_of_pairs_and_the_next_one_still_gets_some() {
    let now = Instant::now();
    let (mut books, _) = books(Willing::default());
    let mut random = counter();
    let mut taken = 0;
    for other in 10..1000 {
        if let Ok(plan) = books.plan(HOME, peer(1), channel(11), peer(other), &mut random) {
            books.open(now, plan, channel(22), at(1), at(2)).unwrap();
            taken += 1;
        }
    }
    assert_eq!((taken, books.pairs.len()), (MAX_PAIRS_EACH, MAX_PAIRS_EACH));
    assert!(books.refused > 0);
    assert!(books.plan(HOME, peer(2), channel(11), peer(3), &mut random).is_ok());
}

#[test]
fn one_member_causes_few_offers_at_a_time() {
    let (mut books, _) = books(Willing::Bulk { rate: 0 });
    let mut under_way: Vec<_> = (0..MAX_OFFERS_EACH).map(|_| books.begin_offer(peer(1)).unwrap()).collect();
    assert_eq!(books.begin_offer(peer(1)), Err(RelayRefusal::Full));
    assert!(books.begin_offer(peer(2)).is_ok());
    under_way.pop();
    assert!(books.begin_offer(peer(1)).is_ok(), "one is over");
    drop(under_way);
    assert!(books.begin_offer(peer(3)).is_ok());
    assert_eq!(books.offers.len(), 1, "nothing is kept of who asks for nothing");
}

#[test]
fn a_way_of_ours_is_asked_for_again_while_it_is_held_and_ends_when_it_is_not() {
    let start = Instant::now();
    let (mut books, written) = books(Willing::default());
    let takes = books.channel(Instant::now(), &peer(5), &peer(2), counter()).unwrap();
    let whose = (HOME, peer(5), peer(2));
    let way = books.set_way(start, whose, at(5), takes, channel(50), true, 7).unwrap();
    assert_eq!((books.via(way), written.ways.lock().unwrap().len()), (Some(peer(5)), 1));
    let expected = Refresh { network: HOME, relay: peer(5), peer: peer(2), channel: takes };
    assert_eq!(books.keep_up(start + REFRESH, everybody), [expected]);
    assert_eq!(books.keep_up(start + REFRESH, everybody), [], "not twice");
    books.hold(start + REFRESH, &[way].into());
    assert_eq!(books.keep_up(start + REFRESH * 2, everybody), [expected]);
    let again = books.set_way(start + REFRESH * 2, whose, at(5), takes, channel(51), true, 8).unwrap();
    assert_eq!(again, way, "the way stays what it was, whatever the relay calls it");
    books.keep_up(start + REFRESH * 2 + LASTS, everybody);
    assert!(written.ways.lock().unwrap().is_empty());
}

#[test]
fn an_offered_way_is_not_ours_to_keep() {
    let start = Instant::now();
    let (mut books, _) = books(Willing::default());
    let takes = books.channel(Instant::now(), &peer(5), &peer(2), counter()).unwrap();
    books.set_way(start, (HOME, peer(5), peer(2)), at(5), takes, channel(50), false, 7).unwrap();
    assert_eq!(books.keep_up(start + REFRESH, everybody), []);
}

#[test]
fn ways_through_one_relay_are_bounded() {
    let start = Instant::now();
    let (mut books, _) = books(Willing::default());
    let mut random = counter();
    for other in 0..600 {
        if let Ok(takes) = books.channel(start, &peer(5), &peer(1000 + other), &mut random) {
            let id = u64::from(other);
            books.set_way(start, (HOME, peer(5), peer(1000 + other)), at(5), takes, channel(50), false, id).unwrap();
        }
    }
    assert_eq!(books.ways.len(), MAX_WAYS_EACH);
    assert!(books.channel(start, &peer(6), &peer(2), &mut random).is_ok());
}

#[test]
fn who_relays_no_longer_holds_the_pairs_there_are_to_introductions() {
    let (mut books, written) = books(Willing::Bulk { rate: 1_000_000 });
    let now = Instant::now();
    for (asker, other) in [(1, 2), (3, 4)] {
        let takes = channel(u64::from(asker));
        let plan = books.plan(HOME, peer(asker), takes, peer(other), rand_from(u64::from(asker) * 1000)).unwrap();
        books.open(now, plan, channel(u64::from(other)), at(1), at(2)).unwrap();
    }
    let limits =
        |written: &Written| -> Vec<Arc<ForwardLimit>> { written.limits.lock().unwrap().values().cloned().collect() };
    let passes = |limit: &ForwardLimit| (0..10_000).filter(|_| limit.take(1000, now)).count() as u64 * 1000;
    let shared = limits(&written);
    // The first pair fills what there is for all, and that of the second is still there.
    let [first, second] = [shared.first(), shared.last()].map(|limit| passes(limit.unwrap()));
    assert!((900_000 / 4..900_000 / 4 + 110_000).contains(&first), "{first}");
    assert!((90_000..110_000).contains(&second), "{second}: bulk of others keeps nobody from meeting");
    books.set_willing(Willing::Introductions);
    assert_eq!(books.rate(), 0);
    let now_each = limits(&written);
    assert!(now_each.iter().zip(&shared).all(|(now, before)| !Arc::ptr_eq(now, before)));
    let passed: u64 = now_each.iter().map(|limit| passes(limit)).sum();
    assert!(passed <= 2 * INTRODUCTION.1, "{passed}: nobody goes on at full rate");
    let told: Vec<u64> = books.pairs().map(|(_, _, stats)| stats.bytes).collect();
    assert_eq!(told, [200, 200], "both directions count");
}

#[test]
fn those_who_fill_a_relay_for_long_keep_nobody_from_meeting() {
    let (mut books, written) = books(Willing::Bulk { rate: 1_000_000 });
    let start = Instant::now();
    let mut pair = |asker: u16| -> Arc<ForwardLimit> {
        let before: Vec<u64> = written.limits.lock().unwrap().keys().copied().collect();
        let takes = channel(u64::from(asker));
        let plan = books.plan(HOME, peer(asker), takes, peer(asker + 100), rand_from(u64::from(asker) * 1000)).unwrap();
        books.open(start, plan, channel(u64::from(asker) + 100), at(1), at(2)).unwrap();
        let all = written.limits.lock().unwrap();
        all.iter().find(|(channel, _)| !before.contains(channel)).map(|(_, limit)| Arc::clone(limit)).unwrap()
    };
    let flooding: Vec<_> = (1..=8).map(&mut pair).collect();
    let mut passed = 0;
    for tenth in 0..=300 {
        let at = start + Duration::from_millis(100) * tenth;
        passed += flooding.iter().map(|limit| (0..500).filter(|_| limit.take(1000, at)).count()).sum::<usize>();
    }
    let newcomer = pair(9);
    let at = start + Duration::from_secs(30);
    let meets = (0..100).filter(|_| newcomer.take(1000, at)).count();
    assert!(meets >= 50, "{meets} kB");
    assert!((25_000..33_000).contains(&passed), "{passed} kB in 30 s of 1 MB/s");
}

fn rand_from(start: u64) -> impl FnMut() -> u64 {
    let mut next = start;
    move || {
        next += 1;
        next
    }
}

#[test]
fn what_went_through_is_counted_beyond_the_end_of_the_pair() {
    let now = Instant::now();
    let (mut books, _written) = books(Willing::default());
    let mut random = counter();
    for asker in [1, 3] {
        let plan = books.plan(HOME, peer(asker), channel(11), peer(2), &mut random).unwrap();
        books.open(now + LASTS * u32::from(asker) / 8, plan, channel(22), at(1), at(2)).unwrap();
    }
    let total = |books: &Relaying| (books.total().packets, books.total().bytes);
    assert_eq!(total(&books), (4, 400));
    books.keep_up(now + LASTS + LASTS / 4, everybody);
    assert_eq!((books.pairs().count(), total(&books)), (1, (4, 400)));
    books.keep_up(now + LASTS * 2, everybody);
    assert_eq!((books.pairs().count(), total(&books)), (0, (4, 400)));
}

#[test]
fn two_ends_that_ask_one_relay_for_each_other_at_once_hear_each_other() {
    let now = Instant::now();
    let (mut relay, written) = books(Willing::default());
    let (mut one, _) = books(Willing::default());
    let (mut two, _) = books(Willing::default());
    let (mut random, home) = (counter(), peer(5));
    let ask = |books: &mut Relaying, of: u16, random: &mut dyn FnMut() -> u64| {
        books.channel(now, &home, &peer(of), random).unwrap()
    };
    let asked = [ask(&mut one, 2, &mut random), ask(&mut two, 1, &mut random)];
    let plans = [
        relay.plan(HOME, peer(1), asked[0], peer(2), &mut random).unwrap(),
        relay.plan(HOME, peer(2), asked[1], peer(1), &mut random).unwrap(),
    ];
    // Each offer comes before the answer to what its taker asked.
    let taken = [ask(&mut two, 1, &mut random), ask(&mut one, 2, &mut random)];
    two.set_way(now, (HOME, home, peer(1)), at(5), taken[0], plans[0].other_sends, false, 1).unwrap();
    one.set_way(now, (HOME, home, peer(2)), at(5), taken[1], plans[1].other_sends, false, 2).unwrap();
    relay.open(now, plans[0], taken[0], at(1), at(2)).unwrap();
    relay.open(now, plans[1], taken[1], at(2), at(1)).unwrap();
    one.set_way(now, (HOME, home, peer(2)), at(5), asked[0], plans[0].asker_sends, true, 3).unwrap();
    two.set_way(now, (HOME, home, peer(1)), at(5), asked[1], plans[1].asker_sends, true, 4).unwrap();
    for (from, to) in [(&one, &two), (&two, &one)] {
        let arrives = written.forwards.lock().unwrap()[&from.ways[0].sends.get()].2;
        assert_eq!(arrives, to.ways[0].takes.get());
    }
}

#[test]
fn a_channel_that_was_named_in_vain_is_forgotten_and_so_many_only_are_kept() {
    let now = Instant::now();
    let (mut books, _) = books(Willing::default());
    let mut random = counter();
    let first = books.channel(now, &peer(5), &peer(2), &mut random).unwrap();
    assert_eq!(books.channel(now + NAMED / 2, &peer(5), &peer(2), &mut random).unwrap(), first);
    assert_ne!(books.channel(now + NAMED, &peer(5), &peer(2), &mut random).unwrap(), first);
    let given = (0..2000).filter(|of| books.channel(now + NAMED, &peer(9), &peer(3000 + of), &mut random).is_ok());
    assert_eq!(given.count(), MAX_WAYS - 1);
}

#[test]
fn introductions_are_bounded_for_each_and_together() {
    let passed = |askers: u16| {
        let now = Instant::now();
        let (mut books, written) = books(Willing::default());
        let mut random = counter();
        for pair in 0..60 {
            let asker = peer(1 + pair % askers);
            let plan = books.plan(HOME, asker, channel(11), peer(100 + pair), &mut random).unwrap();
            books.open(now, plan, channel(u64::from(pair) + 1000), at(1), at(2)).unwrap();
        }
        let limits: Vec<_> = written.limits.lock().unwrap().values().cloned().collect();
        let later = now + Duration::from_secs(60);
        limits.iter().map(|limit| (0..1000).filter(|_| limit.take(1000, later)).count() as u64).sum::<u64>()
    };
    assert_eq!(passed(1), INTRODUCTIONS_EACH.1 / 1000, "one leaves the others theirs");
    assert_eq!(passed(60), INTRODUCTIONS.1 / 1000);
}
