// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two ends, one virtual clock, a router before each.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::guess,
    beside::{LINK_BESIDE_CHECK, MAX_BESIDE},
    *,
};

mod guessing;
mod upsets;

const MS: Duration = Duration::from_millis(1);
const DIRECT: Duration = Duration::from_millis(10);
const BY_RELAY: Duration = Duration::from_millis(25);

/// What a router lets in.
#[derive(Clone, Copy, PartialEq)]
enum Router {
    /// No router.
    None,
    /// One mapping, in by address and port.
    Restricted,
    /// The same, but a packet that comes before it is open takes the port away for what is sent back.
    Masquerade,
    /// Another mapping for each destination.
    Symmetric,
    /// Nothing comes through.
    Wall,
}

enum What {
    Tell { round: u32, answer: bool },
    Check { id: u64, from: SocketAddr, via: SocketAddr },
    Ack { id: u64, from: SocketAddr },
    Nominate { from: SocketAddr },
}

struct End {
    paths: Paths,
    router: Router,
    public: SocketAddr,
    opened: BTreeMap<SocketAddr, SocketAddr>,
    poisoned: BTreeSet<SocketAddr>,
    openers: usize,
    /// Whether it knows what its router does.
    varies: bool,
    guesses: Vec<Duration>,
    /// The outside of the sockets that it opened, and what each is opened to; which of them a destination is pinned to.
    sockets: BTreeMap<SocketAddr, SocketAddr>,
    pinned: BTreeMap<SocketAddr, SocketAddr>,
    uses: Vec<(Duration, SocketAddr)>,
    links: Vec<SocketAddr>,
    relays: usize,
    checks: usize,
    next_port: u16,
}

struct World {
    start: Instant,
    now: Instant,
    ends: [End; 2],
    queue: BTreeMap<(Instant, u64), (usize, What)>,
    sent: u64,
    dead: BTreeSet<SocketAddr>,
    /// How long what each end says takes by the relay.
    tells: [Duration; 2],
    /// Whether openers are sent.
    openers: bool,
}

fn told(answer: bool) -> Told {
    Told { round: 1, answer, varies: false, rtt: Some(20 * MS) }
}

fn way() -> SocketAddr {
    WayId(7).address()
}

impl World {
    fn new(routers: [Router; 2]) -> Self {
        let start = Instant::now();
        let end = |n: u8, router| End {
            paths: Paths::new(n == 0, &[n; 32]),
            router,
            public: SocketAddr::from(([203, 0, 113, n + 1], 41641)),
            opened: BTreeMap::new(),
            poisoned: BTreeSet::new(),
            openers: 0,
            varies: false,
            guesses: Vec::new(),
            sockets: BTreeMap::new(),
            pinned: BTreeMap::new(),
            uses: Vec::new(),
            links: Vec::new(),
            relays: 0,
            checks: 0,
            next_port: 50_000,
        };
        let ends = [end(0, routers[0]), end(1, routers[1])];
        let (queue, dead, tells) = (BTreeMap::new(), BTreeSet::new(), [BY_RELAY; 2]);
        let mut world = Self { start, now: start, ends, queue, sent: 0, dead, tells, openers: true };
        for end in &mut world.ends {
            end.paths.on_session(start, way());
        }
        world
    }

    fn send(&mut self, to: usize, after: Duration, what: What) {
        self.sent += 1;
        self.queue.insert((self.now + after, self.sent), (to, what));
    }

    /// The address a packet of `end` to `to` leaves from.
    fn outside(end: &mut End, to: SocketAddr) -> SocketAddr {
        let next = &mut end.next_port;
        let (router, public) = (end.router, end.public);
        if let Some(pinned) = end.pinned.get(&to) {
            return *pinned;
        }
        let moved = router == Router::Symmetric || end.poisoned.contains(&to);
        *end.opened.entry(to).or_insert_with(|| {
            if moved {
                *next += 7;
                SocketAddr::new(public.ip(), *next)
            } else {
                public
            }
        })
    }

    /// Sends a packet to an address of the other end; it arrives if the router there lets it in.
    fn packet(&mut self, of: usize, to: SocketAddr, what: impl Fn(SocketAddr) -> What) {
        if is_relayed(to) {
            if !self.dead.contains(&to) {
                self.send(1 - of, BY_RELAY, what(to));
            }
            return;
        }
        let from = Self::outside(&mut self.ends[of], to);
        self.leave(of, from, to, what);
    }

    fn leave(&mut self, of: usize, from: SocketAddr, to: SocketAddr, what: impl Fn(SocketAddr) -> What) {
        let other = &mut self.ends[1 - of];
        if other.router == Router::Masquerade && to == other.public && !other.opened.contains_key(&from) {
            other.poisoned.insert(from);
        }
        let open = match other.router {
            Router::None => to == other.public,
            Router::Restricted | Router::Masquerade | Router::Symmetric => {
                other.opened.get(&from) == Some(&to) || other.sockets.get(&to) == Some(&from)
            }
            Router::Wall => false,
        };
        if open && self.ends[of].router != Router::Wall && !self.dead.contains(&to) && !self.dead.contains(&from) {
            let other = &mut self.ends[1 - of];
            if other.sockets.get(&to) == Some(&from) {
                other.pinned.insert(from, to);
            }
            self.send(1 - of, DIRECT, what(from));
        }
    }

    fn act(&mut self, of: usize) {
        while let Some(action) = self.ends[of].paths.poll_action() {
            match action {
                Action::Tell { round, answer } => self.send(1 - of, self.tells[of], What::Tell { round, answer }),
                Action::Open(to) if self.openers => {
                    self.ends[of].openers += 1;
                    let _from = Self::outside(&mut self.ends[of], to);
                }
                Action::Open(_) => {}
                Action::Check { id, to } => {
                    self.ends[of].checks += 1;
                    self.packet(of, to, |from| What::Check { id, from, via: to });
                }
                Action::Use(at) => {
                    self.ends[of].uses.push((self.now - self.start, at));
                    self.packet(of, at, |from| What::Nominate { from });
                }
                Action::Link(at) => self.ends[of].links.push(at),
                Action::Relay => self.ends[of].relays += 1,
                Action::Guess => {
                    let (since, end) = (self.now - self.start, &mut self.ends[of]);
                    if end.paths.guess(self.now, end.varies, 0x0005_1234_0000_7777 + of as u64) {
                        end.guesses.push(since);
                    }
                }
                Action::OpenSockets(to) => {
                    // A router that varies gives each an outside port of its own, spread over all there are.
                    let (ip, varies) = (self.ends[of].public.ip(), self.ends[of].router == Router::Symmetric);
                    let ports = (0..guess::SOCKETS as u16).filter(|_| varies).map(|n| 2000 + n * 247);
                    self.ends[of].sockets = ports.map(|port| (SocketAddr::new(ip, port), to)).collect();
                }
                Action::CheckFromAll { id, to } => {
                    for from in self.ends[of].sockets.keys().copied().collect::<Vec<_>>() {
                        self.leave(of, from, to, |from| What::Check { id, from, via: to });
                    }
                }
            }
        }
    }

    fn arrive(&mut self, at: usize, what: What) {
        let now = self.now;
        match what {
            What::Tell { round, answer } => {
                let told = [self.ends[1 - at].public];
                let (rtt, varies) = (self.tells[0] + self.tells[1], self.ends[1 - at].varies);
                self.ends[at].paths.on_told(now, Told { round, answer, varies, rtt: Some(rtt) }, &told);
            }
            What::Check { id, from, via } => {
                if self.ends[at].paths.current != Some(from) {
                    self.ends[at].paths.on_heard(now, from);
                }
                self.packet(at, from, |_| What::Ack { id, from: via });
            }
            What::Ack { id, from } => drop(self.ends[at].paths.on_ack(now, id, from, now)),
            What::Nominate { from } => self.ends[at].paths.on_path(now, from),
        }
    }

    /// Runs for a while.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            (0..2).for_each(|of| self.act(of));
            let timers = self.ends.iter().filter_map(|end| end.paths.poll_timeout());
            let arrival = self.queue.keys().next().map(|&(at, _)| at);
            let Some(next) = timers.chain(arrival).min().filter(|&at| at <= until) else { break };
            self.now = next.max(self.now);
            if let Some((&(at, number), _)) = self.queue.iter().next()
                && at <= self.now
                && let Some((end, what)) = self.queue.remove(&(at, number))
            {
                self.arrive(end, what);
            }
            for end in &mut self.ends {
                end.paths.handle_timeout(self.now);
            }
        }
        self.now = until;
    }

    fn direct(&self) -> [bool; 2] {
        [0, 1].map(|n: usize| self.ends[n].paths.current.is_some_and(|at| !is_relayed(at)))
    }
}

#[test]
fn two_home_routers_are_punched_in_a_moment_and_the_link_follows() {
    for routers in [[Router::Restricted; 2], [Router::None, Router::Restricted], [Router::None, Router::Symmetric]] {
        let mut world = World::new(routers);
        world.run(Duration::from_secs(1));
        assert_eq!(world.direct(), [true, true]);
        let (after, at) = world.ends[0].uses[0];
        assert!(after < Duration::from_millis(400), "{after:?}");
        assert_eq!(world.ends[0].links, [at], "the end with the lower PeerID dials");
        assert!(world.ends[1].links.is_empty());
    }
}

#[test]
fn openers_keep_a_plain_masquerade_from_taking_the_port_away() {
    let others = [Router::Masquerade, Router::Restricted, Router::None];
    let pairs = others.into_iter().flat_map(|other| [[Router::Masquerade, other], [other, Router::Masquerade]]);
    for (routers, tells) in pairs.flat_map(|pair| [[1, 1], [1, 4], [4, 1], [1, 10], [10, 1]].map(|tells| (pair, tells)))
    {
        let mut world = World::new(routers);
        world.tells = tells.map(|times| BY_RELAY * times);
        world.run(Duration::from_secs(2));
        assert_eq!(world.direct(), [true, true], "{tells:?}");
        assert!(world.ends.iter().all(|end| end.openers <= 2 && end.poisoned.is_empty()));
    }
}

#[test]
fn without_openers_whoever_is_late_is_shut_out() {
    let mut world = World::new([Router::Masquerade; 2]);
    (world.tells, world.openers) = ([BY_RELAY * 10, BY_RELAY], false);
    world.run(Duration::from_secs(2));
    assert_eq!(world.direct(), [false, false]);
}

#[test]
fn only_what_a_router_may_take_amiss_is_held_back_and_opened() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    let named = ["203.0.113.1:1", "192.168.1.5:1", "100.64.0.9:1", "[2001:db8::1]:1"].map(|at| at.parse().unwrap());
    paths.on_told(now, told(false), &named);
    let actions: Vec<Action> = std::iter::from_fn(|| paths.poll_action()).collect();
    let opened: Vec<&Action> = actions.iter().filter(|action| matches!(action, Action::Open(_))).collect();
    assert_eq!(opened, [&Action::Open(named[0])]);
    let checked = |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Check { .. })).count();
    assert_eq!(checked(&actions), 3);
    paths.on_heard(now + MS, named[0]);
    let freed: Vec<Action> = std::iter::from_fn(|| paths.poll_action()).collect();
    assert_eq!(checked(&freed), 1, "who is heard can be reached");
}

#[test]
fn what_cannot_be_punched_stays_relayed_and_is_tried_ever_more_rarely() {
    let mut world = World::new([Router::Symmetric; 2]);
    world.run(Duration::from_secs(3600));
    assert_eq!(world.direct(), [false, false]);
    let sent: usize = world.ends.iter().map(|end| end.checks).sum();
    let guessed: usize = world.ends.iter().map(|end| end.guesses.len()).sum();
    assert!((2..=12).contains(&guessed), "{guessed} guesses in an hour");
    let sent = sent - guessed * usize::from(guess::PORTS);
    assert!((100..1200).contains(&sent), "{sent} checks in an hour");
    assert!(world.ends[0].paths.why_relayed().contains("no direct way"));
}

#[test]
fn a_wall_costs_no_more_than_its_checks() {
    let mut world = World::new([Router::Wall, Router::None]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.direct(), [false, false]);
}

#[test]
fn the_end_that_does_not_choose_takes_the_path_when_the_other_stays_silent() {
    let now = Instant::now();
    let mut paths = Paths::new(false, &[7; 32]);
    let at = SocketAddr::from(([203, 0, 113, 1], 41641));
    paths.on_session(now, way());
    assert!(paths.on_told(now, told(true), &[at]));
    let mut id = None;
    while let Some(action) = paths.poll_action() {
        if let Action::Check { id: check, .. } = action {
            id = Some(check);
        }
    }
    paths.on_ack(now + 20 * MS, id.unwrap(), at, now + 20 * MS);
    assert_eq!(paths.poll_action(), None, "the other end is to choose");
    paths.handle_timeout(now + 20 * MS + OTHER_CHOOSES);
    assert!(std::iter::from_fn(|| paths.poll_action()).any(|action| action == Action::Use(at)));
}

#[test]
fn an_answer_from_elsewhere_or_to_nothing_moves_no_path() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    let (named, elsewhere) = (SocketAddr::from(([203, 0, 113, 1], 1)), SocketAddr::from(([203, 0, 113, 9], 9)));
    paths.on_session(now, way());
    paths.on_told(now, told(true), &[named]);
    let id = |action| if let Action::Check { id, .. } = action { Some(id) } else { None };
    let id = std::iter::from_fn(|| paths.poll_action()).find_map(id).unwrap();
    assert_eq!(paths.on_ack(now, 99, named, now), None, "nothing of ours");
    assert!(paths.on_ack(now, id, elsewhere, now).is_some());
    let uses = std::iter::from_fn(|| paths.poll_action()).any(|action| matches!(action, Action::Use(_)));
    assert!(!uses && paths.current == Some(way()));
}

#[test]
fn a_dead_path_is_left_for_a_relay_and_the_direct_way_is_found_again() {
    let mut world = World::new([Router::Restricted; 2]);
    world.run(Duration::from_secs(2));
    let [a, b] = [0, 1].map(|n: usize| world.ends[n].public);
    world.dead.extend([a, b]);
    let now = world.now;
    world.ends[0].paths.on_suspect(now);
    assert_eq!(world.ends[0].paths.suspect, Some(now));
    world.run(MS);
    assert_eq!(world.ends[0].relays, 1);
    let now = world.now;
    world.ends[0].paths.on_way(now, way());
    world.run(Duration::from_millis(200));
    assert_eq!(world.direct(), [false, false]);
    world.dead.clear();
    world.run(Duration::from_secs(30));
    assert_eq!(world.direct(), [true, true]);
}

#[test]
fn from_one_relay_to_another_the_link_follows() {
    for chooses in [true, false] {
        let (start, other) = (Instant::now(), WayId(8).address());
        let mut paths = Paths::new(chooses, &[7; 32]);
        paths.on_session(start, way());
        paths.on_suspect(start);
        paths.on_way(start, other);
        let check = |action| if let Action::Check { id, to } = action { (to == other).then_some(id) } else { None };
        let id = std::iter::from_fn(|| paths.poll_action()).find_map(check).unwrap();
        // The check is answered before a link beside it is due.
        let soon = start + LINK_BESIDE_CHECK / 4;
        assert!(paths.on_ack(soon, id, other, soon).is_some());
        if !chooses {
            assert_eq!(paths.poll_action(), None, "the other end is to choose");
            paths.handle_timeout(soon + OTHER_RESCUES);
        }
        let mut links: Vec<Action> = std::iter::from_fn(|| paths.poll_action()).collect();
        assert!(links.contains(&Action::Use(other)), "{links:?}");
        paths.handle_timeout(start + OTHER_CHOOSES * 5);
        links.extend(std::iter::from_fn(|| paths.poll_action()));
        assert!(links.contains(&Action::Link(other)), "{links:?}");
        // Once it is there nothing more is made.
        paths.on_session(start + OTHER_CHOOSES * 6, other);
        paths.handle_timeout(start + OTHER_CHOOSES * 60);
        assert!(!std::iter::from_fn(|| paths.poll_action()).any(|action| matches!(action, Action::Link(_))));
    }
}

#[test]
fn a_peer_that_asks_all_the_time_causes_few_tries() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    let named = |n: u16| SocketAddr::from(([203, 0, 113, 1], n));
    let taken = (1..=1000).filter(|n| paths.on_told(now + u32::from(*n) * MS, told(false), &[named(*n)])).count();
    assert!(taken <= TOLD_BURST as usize + 2, "{taken}");
    let checks = std::iter::from_fn(|| paths.poll_action()).filter(|action| matches!(action, Action::Check { .. }));
    assert!(checks.count() <= MAX_TRIED * CHECK_AT.len());
}

#[test]
fn without_a_session_nobody_is_asked_and_nothing_is_waited_for() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, SocketAddr::from(([203, 0, 113, 1], 1)));
    paths.on_suspect(now);
    paths.on_gone();
    while paths.poll_action().is_some() {}
    paths.on_way(now, way());
    paths.handle_timeout(now + Duration::from_secs(60));
    assert_eq!((paths.poll_action(), paths.poll_timeout()), (None, None));
}

#[test]
fn a_peer_that_fills_the_checks_does_not_keep_us_awake() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    for number in 0..MAX_CHECKS {
        let port = u16::try_from(number).unwrap() + 1;
        paths.checks.push_back((u64::MAX - u64::from(port), SocketAddr::from(([203, 0, 113, 1], port)), now));
    }
    paths.try_at(now, SocketAddr::from(([203, 0, 113, 2], 2)), false);
    paths.next_try = None;
    paths.handle_timeout(now);
    assert!(paths.poll_timeout().is_some_and(|at| at > now));
}

#[test]
fn what_is_heard_is_bounded() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    for port in 1..1000 {
        paths.on_heard(now, SocketAddr::from(([203, 0, 113, 1], port)));
    }
    assert_eq!(paths.tried.len(), MAX_HEARD);
}

/// Has addresses answer, each after a check there.
fn answer_from(paths: &mut Paths, now: Instant, ports: std::ops::Range<u16>) {
    for port in ports {
        let at = SocketAddr::from(([203, 0, 113, 1], port));
        paths.on_told(now, told(true), &[at]);
        (paths.told_debt, paths.told_at) = (Duration::ZERO, None);
        let ids: Vec<u64> = std::iter::from_fn(|| paths.poll_action())
            .filter_map(|action| if let Action::Check { id, to } = action { (to == at).then_some(id) } else { None })
            .collect();
        let _rtts: Vec<_> = ids.into_iter().map(|id| paths.on_ack(now, id, at, now)).collect();
    }
}

#[test]
fn what_has_answered_gives_way_to_what_is_new_and_ends_some_day() {
    let now = Instant::now();
    let mut paths = Paths::new(false, &[7; 32]);
    paths.on_session(now, way());
    answer_from(&mut paths, now, 1..200);
    assert_eq!(paths.tried.len(), MAX_TRIED);
    assert!(paths.tried.contains_key(&SocketAddr::from(([203, 0, 113, 1], 199))), "the newest is known");
    let in_use = SocketAddr::from(([203, 0, 113, 1], 199));
    paths.on_path(now, in_use);
    paths.handle_timeout(now + Duration::from_secs(1800));
    assert_eq!(paths.tried.len(), MAX_TRIED, "for when the path dies");
    paths.handle_timeout(now + ANSWER_LASTS);
    assert_eq!(paths.tried.keys().copied().collect::<Vec<_>>(), [in_use]);
}

#[test]
fn a_path_taken_after_silence_is_a_failover_and_is_counted_beyond_the_session() {
    let mut now = Instant::now();
    let (direct, way) = (SocketAddr::from(([192, 0, 2, 1], 1)), WayId(9).address());
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, direct);
    paths.on_path(now, SocketAddr::from(([192, 0, 2, 1], 2)));
    assert_eq!(paths.moves(), Moves { changes: 1, failovers: 0 });
    paths.on_suspect(now);
    paths.on_way(now, way);
    let check = loop {
        match paths.poll_action() {
            Some(Action::Check { id, to }) if to == way => break id,
            Some(_) => {}
            None => {
                now = paths.poll_timeout().unwrap();
                paths.handle_timeout(now);
            }
        }
    };
    paths.on_ack(now, check, way, now + MS);
    assert_eq!(paths.moves(), Moves { changes: 2, failovers: 1 });
    paths.on_gone();
    paths.on_session(now, direct);
    assert_eq!(paths.moves(), Moves { changes: 2, failovers: 1 }, "a new session is no change of path");
}
