// SPDX-License-Identifier: MIT OR Apache-2.0
use super::{lengths::NEAR, *};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const INNER: u16 = 1420;
const TARGET: u16 = INNER + OVERHEAD as u16;

fn remote() -> SocketAddr {
    "192.0.2.1:1".parse().unwrap()
}

/// A path under virtual time: what is longer than `limit` vanishes, and of the rest a share, there and back.
struct Net {
    mtu: Mtu,
    now: Instant,
    limit: u16,
    /// Longer ones are refused by the system.
    local: u16,
    loss: f64,
    rtt: Duration,
    seed: u64,
    answers: VecDeque<(Instant, u64)>,
    bytes: u64,
    size: PathSize,
    least: u16,
    bucket: Option<Bucket>,
}

/// Of what is longer than the tokens at hand nothing passes; other traffic of full length takes most of them.
struct Bucket {
    rate: f64,
    depth: f64,
    tokens: f64,
    at: Instant,
    /// Time between two packets of the other traffic.
    gap: Duration,
    /// Its share of the time until the next, another one each time.
    factor: f64,
}

impl Bucket {
    fn passes(&mut self, now: Instant, len: u16) -> bool {
        while self.at + self.gap <= now {
            self.at += self.gap.mul_f64(self.factor);
            self.factor = 0.5 + (self.factor * 7.3).fract();
            self.tokens = (self.tokens + self.rate * self.gap.as_secs_f64() * self.factor).min(self.depth);
            self.take(1300.0);
        }
        self.take(f64::from(len.max(42)))
    }

    fn take(&mut self, len: f64) -> bool {
        let is_enough = self.tokens >= len;
        self.tokens -= if is_enough { len } else { 0.0 };
        is_enough
    }
}

impl Net {
    fn new(limit: u16, loss: f64, rtt: Duration, seed: u64) -> Self {
        let mut net = Self {
            mtu: Mtu::new(&[7; 32]),
            now: Instant::now(),
            limit,
            local: u16::MAX,
            loss,
            rtt,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            answers: VecDeque::new(),
            bytes: 0,
            size: PathSize::default(),
            least: u16::MAX,
            bucket: None,
        };
        net.mtu.on_path(net.now, remote(), INNER, true);
        net
    }

    /// xorshift64*
    fn lost(&mut self) -> bool {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        let draw = (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64;
        draw < self.loss
    }

    fn drain(&mut self) {
        while let Some(probe) = self.mtu.poll_probe() {
            if probe.len > self.local {
                self.mtu.on_unsent(self.now, probe.id);
                continue;
            }
            self.bytes += u64::from(probe.len.max(42));
            let now = self.now;
            if self.bucket.as_mut().is_some_and(|bucket| !bucket.passes(now, probe.len)) {
                continue;
            }
            if probe.len <= self.limit && !self.lost() && !self.lost() {
                self.answers.push_back((self.now + self.rtt, probe.id));
            }
        }
        if let Some(size) = self.mtu.poll_size(INNER) {
            self.size = size;
        }
        self.least = self.least.min(self.size.carry);
    }

    /// Lets time pass; with `busy` long datagrams are in use.
    fn run(&mut self, time: Duration, busy: bool) {
        let end = self.now + time;
        let mut next_use = self.now;
        self.drain();
        loop {
            let answer = self.answers.front().map(|&(at, _)| at);
            let using = busy.then_some(next_use);
            let Some(at) = [answer, self.mtu.poll_timeout(), using].into_iter().flatten().min().filter(|&at| at <= end)
            else {
                break;
            };
            self.now = self.now.max(at);
            if answer == Some(at) {
                let (at, id) = self.answers.pop_front().unwrap();
                self.mtu.on_ack(self.now, id, remote(), at);
            } else if using == Some(at) {
                next_use = self.now + 500 * MS;
                self.mtu.on_long_in_use(self.now);
            } else {
                self.mtu.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
    }
}

#[test]
fn a_path_without_limit_is_found_in_one_round_trip_and_then_nothing_is_sent() {
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.run(20 * MS, false);
    assert_eq!(net.size.carry, TARGET);
    assert_eq!(net.size.advise, u16::MAX, "the interface says it already");
    let bytes = net.bytes;
    net.run(3600 * SECOND, false);
    assert_eq!(net.bytes, bytes, "an idle path is not probed");
    assert!(bytes < 1600, "{bytes}");
}

#[test]
fn a_limit_from_the_start_is_found_within_a_second_and_senders_are_told_when_it_is_sure() {
    for limit in [1372, 1252, 972, 1400, 1000, 1201, 600, 500] {
        let mut net = Net::new(limit, 0.0, 10 * MS, 1);
        net.run(SECOND / 2, false);
        assert!(net.size.carry <= limit, "{limit}: {}", net.size.carry);
        net.run(10 * SECOND, false);
        assert!(net.size.carry <= limit && net.size.carry + NEAR.max(1) >= limit, "{limit}: {}", net.size.carry);
        let advise = if net.mtu.proven > 0 { net.size.carry - 32 } else { u16::MAX };
        assert_eq!(net.size.advise, advise, "{limit}");
        assert!(net.bytes < 150_000, "{limit}: {}", net.bytes);
    }
}

#[test]
fn a_hole_that_appears_under_traffic_is_found_within_a_second_and_a_half() {
    for limit in [1372, 1252, 972] {
        for rtt in [MS / 5, 20 * MS, 100 * MS] {
            let mut net = Net::new(u16::MAX, 0.0, rtt, 1);
            net.run(2 * SECOND, false);
            assert_eq!(net.size.carry, TARGET);
            net.limit = limit;
            net.run(3 * SECOND / 2, true);
            assert_eq!(net.size.carry, limit, "rtt {rtt:?}");
            assert_eq!(net.mtu.holes(), 1);
        }
    }
}

#[test]
fn a_hole_that_vanishes_is_used_again() {
    let mut net = Net::new(1252, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    assert_eq!(net.size.carry, 1252);
    net.limit = u16::MAX;
    net.run(70 * SECOND, true);
    assert_eq!((net.size.carry, net.size.advise), (TARGET, u16::MAX));
}

#[test]
fn random_loss_is_never_taken_for_a_hole() {
    for (loss, seeds) in [(0.01, 20), (0.05, 20), (0.1, 20), (0.2, 40), (0.3, 40)] {
        for seed in 1..=seeds {
            let mut net = Net::new(u16::MAX, loss, 30 * MS, seed);
            net.run(20 * SECOND, true);
            net.least = u16::MAX;
            net.run(600 * SECOND, true);
            assert_eq!((net.mtu.holes(), net.size.carry), (0, TARGET), "loss {loss}, seed {seed}");
        }
    }
}

#[test]
fn a_hole_is_found_under_loss() {
    for loss in [0.0, 0.05, 0.1, 0.2, 0.3] {
        for seed in 1..20 {
            let mut net = Net::new(u16::MAX, loss, 30 * MS, seed);
            net.run(60 * SECOND, true);
            net.limit = 1252;
            net.run(30 * SECOND, true);
            assert!(net.size.carry <= 1252 && net.size.carry >= 900, "loss {loss}, seed {seed}: {}", net.size.carry);
        }
    }
}

#[test]
fn what_the_system_refuses_is_known_at_once() {
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.run(SECOND, true);
    net.local = 1444;
    net.mtu.on_too_long(net.now);
    net.run(100 * MS, true);
    assert_eq!(net.size.carry, 1444);
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.local = 1444;
    net.mtu = Mtu::new(&[1; 32]);
    net.mtu.on_path(net.now, remote(), INNER, true);
    net.run(100 * MS, false);
    assert_eq!(net.size.carry, 1444, "a relay over IPv6");
}

#[test]
fn a_forged_or_repeated_answer_raises_nothing() {
    let mut net = Net::new(1252, 0.0, 20 * MS, 1);
    net.run(10 * SECOND, true);
    let (carry, now) = (net.size.carry, net.now);
    for id in 0..10_000 {
        net.mtu.on_ack(now, id, remote(), now);
    }
    net.drain();
    assert_eq!(net.size.carry, carry, "answers that were had already, and ids that were never sent");
    let mut mtu = Mtu::new(&[7; 32]);
    mtu.on_path(now, remote(), INNER, true);
    let id = mtu.poll_probe().unwrap().id;
    assert!(mtu.on_ack(now, id, "192.0.2.2:1".parse().unwrap(), now), "ours");
    assert_eq!(mtu.carry(), BASE, "but by another road");
    assert!(!mtu.on_ack(now, id, remote(), now));
    assert_eq!(mtu.carry(), BASE);
}

#[test]
fn a_dead_path_is_not_mistaken_for_a_hole_and_not_probed_for_ever() {
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.run(SECOND, true);
    net.loss = 1.0;
    net.bytes = 0;
    net.run(120 * SECOND, true);
    assert_eq!((net.mtu.holes(), net.size.carry), (0, TARGET));
    assert!(net.bytes < 120 * 3000, "{}", net.bytes);
}

#[test]
fn another_path_is_searched_anew_from_what_quic_needs() {
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.run(SECOND, false);
    net.mtu.on_path(net.now, "192.0.2.9:1".parse().unwrap(), INNER, true);
    assert_eq!(net.mtu.poll_size(INNER), Some(PathSize { carry: BASE, advise: u16::MAX, narrow: false }));
    net.mtu.on_path(net.now, "192.0.2.9:1".parse().unwrap(), 600, true);
    assert_eq!(net.mtu.poll_size(INNER).unwrap().carry, 632, "an interface of the user's own size");
}

#[test]
fn probing_under_traffic_is_two_probes_a_second() {
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.run(100 * SECOND, true);
    assert!(net.bytes < 100 * 3100, "{}", net.bytes);
}

/// Bytes of the shortest packet by which a peer can move, and of a small probe.
const LEAST: u64 = 42;

fn bytes_of(mtu: &mut Mtu) -> u64 {
    std::iter::from_fn(|| mtu.poll_probe()).map(|probe| u64::from(probe.len).max(LEAST)).sum()
}

/// Lets the timers run out; what is sent meanwhile, and how long that was.
fn unanswered(mtu: &mut Mtu, now: &mut Instant) -> u64 {
    let mut bytes = bytes_of(mtu);
    for _ in 0..100 {
        let Some(at) = mtu.poll_timeout() else { break };
        *now = at;
        mtu.handle_timeout(at);
        mtu.on_long_in_use(at);
        mtu.on_too_long(at);
        bytes += bytes_of(mtu);
    }
    bytes
}

#[test]
fn where_a_forger_says_the_peer_is_little_is_sent() {
    let victim: SocketAddr = "192.0.2.66:1".parse().unwrap();
    let (mut mtu, mut now) = (Mtu::new(&[7; 32]), Instant::now());
    mtu.on_path(now, remote(), INNER, true);
    let (mut came, mut went) = (0, 0);
    for round in 0..50 {
        bytes_of(&mut mtu);
        came += LEAST;
        mtu.on_path(now, victim, INNER, false);
        went += unanswered(&mut mtu, &mut now);
        // The same again, another interface MTU, another network of ours, more packets.
        mtu.on_path(now, victim, INNER, false);
        for other in 0..5 {
            mtu.on_path(now, victim, INNER - 1 - round % 2 - 2 * other, false);
            mtu.on_network(now);
            went += unanswered(&mut mtu, &mut now);
        }
        now += SECOND;
        mtu.on_heard(now, victim, now);
        mtu.on_heard(now, victim, now);
        came += LEAST;
        went += unanswered(&mut mtu, &mut now);
        assert!(went <= 3 * came, "{went} for {came}");
        now += SECOND;
        mtu.on_path(now, remote(), INNER, true);
    }
    assert!(went > 0);
}

#[test]
fn a_peer_that_moved_answers_and_is_searched() {
    let moved: SocketAddr = "192.0.2.9:1".parse().unwrap();
    let (mut mtu, start) = (Mtu::new(&[7; 32]), Instant::now());
    let mut now = start;
    mtu.on_path(now, moved, INNER, false);
    unanswered(&mut mtu, &mut now);
    mtu.on_heard(now, moved, start);
    assert_eq!(mtu.poll_probe(), None, "that was the packet that moved it");
    now += SECOND;
    mtu.on_heard(now, moved, now);
    let small = mtu.poll_probe().unwrap();
    assert_eq!((small.to, small.len, mtu.poll_probe()), (moved, 0, None));
    mtu.on_ack(now, small.id, moved, now);
    assert_eq!(mtu.poll_probe().unwrap().len, TARGET);
    let mut linked = Mtu::new(&[7; 32]);
    linked.on_path(now, moved, INNER, false);
    bytes_of(&mut linked);
    linked.on_path(now, moved, INNER, true);
    assert_eq!(linked.poll_probe().unwrap().len, TARGET, "its link is there");
}

#[test]
fn what_a_peer_saw_does_not_tell_it_the_next_id() {
    let ids = |secret| {
        let (mut mtu, now) = (Mtu::new(&[secret; 32]), Instant::now());
        mtu.on_path(now, remote(), INNER, true);
        (0..20).for_each(|tick| mtu.handle_timeout(now + SECOND * tick));
        std::iter::from_fn(|| mtu.poll_probe()).map(|probe| probe.id).collect::<Vec<_>>()
    };
    let one = ids(1);
    assert!(
        one.len() > 10 && one.iter().all(|id| one.iter().filter(|other| other.abs_diff(*id) < 1 << 32).count() == 1)
    );
    assert!(ids(2).iter().all(|id| !one.contains(id)), "each peer has a key of its own");
}

#[test]
fn dense_traffic_does_not_keep_longer_ones_from_being_tried() {
    let mut net = Net::new(1252, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    net.limit = u16::MAX;
    for event in 0_u32..140 {
        net.run(500 * MS + Duration::from_micros(u64::from(event * 37 % 900)), false);
        net.mtu.on_long_in_use(net.now);
    }
    assert_eq!(net.size.carry, TARGET);
}

#[test]
fn loss_that_goes_by_bytes_is_seldom_taken_for_a_hole_and_never_for_long() {
    for seed in 1..=20 {
        let mut net = Net::new(u16::MAX, 0.0, 30 * MS, seed);
        net.run(20 * SECOND, true);
        // More is sent than the 24 kB/s that pass.
        let gap = Duration::from_micros(40_000 + 307 * seed);
        net.bucket = Some(Bucket { rate: 24_000.0, depth: 6_000.0, tokens: 6_000.0, at: net.now, gap, factor: 0.7 });
        let mut narrow = 0;
        for _ in 0..6000 {
            net.run(100 * MS, true);
            narrow += u64::from(net.size.carry < BASE);
        }
        assert!(net.mtu.holes() <= 5, "{} in ten minutes, seed {seed}", net.mtu.holes());
        assert!(narrow <= 100, "{narrow} tenths of a second, seed {seed}");
    }
}

#[test]
fn links_go_in_pieces_where_the_path_is_narrow_and_not_where_the_interface_is() {
    let mut net = Net::new(972, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    assert_eq!((net.size.carry, net.size.narrow), (972, true));
    let mut net = Net::new(u16::MAX, 0.0, 20 * MS, 1);
    net.mtu.on_path(net.now, remote(), 600, true);
    net.run(20 * SECOND, true);
    assert_eq!((net.size.carry, net.size.narrow), (632, false));
    net.limit = 600;
    net.run(20 * SECOND, true);
    assert!(net.size.carry <= 600 && net.size.narrow, "less than was asked for does not pass");
}

#[test]
fn in_another_network_of_ours_the_search_begins_anew() {
    let mut net = Net::new(1252, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    assert_eq!(net.size.carry, 1252);
    net.limit = u16::MAX;
    net.mtu.on_network(net.now);
    net.run(SECOND, false);
    assert_eq!((net.size.carry, net.mtu.remote()), (TARGET, Some(remote())));
    let mut gone = Mtu::new(&[7; 32]);
    gone.on_network(net.now);
    assert_eq!((gone.poll_probe(), gone.poll_timeout()), (None, None), "without a path there is none to search");
}

#[test]
fn a_narrow_path_that_was_left_is_forgotten_for_whoever_is_there_next() {
    let elsewhere = [3, 4].map(|n| SocketAddr::from(([192, 0, 2, n], 7)));
    let mut net = Net::new(972, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    assert!(net.size.narrow);
    net.mtu.on_network(net.now);
    assert_eq!(net.mtu.poll_left(), None, "it is the same path");
    net.mtu.on_path(net.now, elsewhere[0], INNER, true);
    net.mtu.on_path(net.now, elsewhere[1], INNER, true);
    let mut left: Vec<_> = std::iter::from_fn(|| net.mtu.poll_left()).collect();
    left.sort();
    assert_eq!(left, [remote(), elsewhere[0]]);
}

#[test]
fn with_the_last_session_its_path_is_forgotten() {
    let mut net = Net::new(972, 0.0, 20 * MS, 1);
    net.run(20 * SECOND, true);
    net.mtu.on_gone();
    assert_eq!((net.mtu.poll_left(), net.mtu.poll_left()), (Some(remote()), None));
}
