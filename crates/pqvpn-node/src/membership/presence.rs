// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is online: of whom this node has heard a moment ago, by its own link or in the words of members that have one.
//!
//! Pure: time is an argument. It is what people are shown; nothing else is decided by it, since a member could say of
//! another that it lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;

/// A member of whom nothing was heard for so long is not online: three words on a link, as it passes from link to link.
pub(super) const ONLINE: Duration = Duration::from_secs(75);
/// The unit in which members tell each other how long ago that was.
const UNIT: Duration = Duration::from_millis(500);
/// Not heard, or too long ago to be told.
const SILENT: u8 = u8::MAX;

/// When each member was heard of last.
#[derive(Debug, Default)]
pub(super) struct Lives {
    lives: BTreeMap<PeerId, Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    heard: Option<Instant>,
    /// When our own link with it broke, or a dial came to nothing: what was heard before counts no more.
    missed: Option<Instant>,
}

impl Lives {
    /// The member itself spoke to us.
    pub(super) fn heard(&mut self, now: Instant, peer: PeerId) -> bool {
        let before = self.lives.insert(peer, Life { heard: Some(now), missed: None });
        before.is_none_or(|life| life.heard.is_none())
    }

    /// Somebody heard it then.
    fn hearsay(&mut self, at: Instant, peer: PeerId) {
        let life = self.lives.entry(peer).or_insert(Life { heard: None, missed: None });
        if life.missed.is_none_or(|missed| at > missed) {
            life.heard = life.heard.max(Some(at));
        }
    }

    /// It was not there where it should be.
    pub(super) fn missed(&mut self, now: Instant, peer: PeerId) {
        self.lives.insert(peer, Life { heard: None, missed: Some(now) });
    }

    /// Whether it counts as online.
    pub(super) fn is_online(&self, now: Instant, peer: &PeerId) -> bool {
        let heard = self.lives.get(peer).and_then(|life| life.heard);
        heard.is_some_and(|at| now.saturating_duration_since(at) < ONLINE)
    }

    /// Ends what was heard too long ago; says whether anything did.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for life in self.lives.values_mut() {
            if life.heard.is_some_and(|at| now.saturating_duration_since(at) >= ONLINE) {
                life.heard = None;
                any = true;
            }
        }
        any
    }

    /// When somebody's being online ends by time alone.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lives.values().filter_map(|life| life.heard).min().map(|at| at + ONLINE)
    }

    /// Only members are remembered.
    pub(super) fn retain(&mut self, members: &BTreeSet<PeerId>) {
        self.lives.retain(|peer, _| members.contains(peer));
    }

    /// How long ago each of `members` was heard of, for others that have the same list; `own`: we live.
    pub(super) fn tell<'m>(&self, now: Instant, own: &PeerId, members: impl Iterator<Item = &'m PeerId>) -> Vec<u8> {
        let age = |peer: &PeerId| {
            if peer == own {
                return 0;
            }
            let Some(at) = self.lives.get(peer).and_then(|life| life.heard) else { return SILENT };
            let age = now.saturating_duration_since(at);
            if age >= ONLINE {
                return SILENT;
            }
            u8::try_from(age.as_millis().div_ceil(UNIT.as_millis())).unwrap_or(SILENT)
        };
        let mut ages: Vec<u8> = members.map(age).collect();
        ages.truncate(ages.iter().rposition(|age| *age != SILENT).map_or(0, |last| last + 1));
        ages
    }

    /// Takes over what `from` says of the same list.
    pub(super) fn learn<'m>(
        &mut self,
        now: Instant,
        (own, from): (&PeerId, &PeerId),
        members: impl Iterator<Item = &'m PeerId>,
        ages: &[u8],
    ) -> bool {
        let mut news = false;
        for (peer, age) in members.zip(ages) {
            // Of itself it has just spoken; of us we know better.
            if *age == SILENT || peer == own || peer == from {
                continue;
            }
            let Some(at) = now.checked_sub(UNIT * u32::from(*age)) else { continue };
            if now.saturating_duration_since(at) < ONLINE {
                let before = self.is_online(now, peer);
                self.hearsay(at, *peer);
                news |= !before && self.is_online(now, peer);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_wire::dht::NetworkId;

    use super::{super::overlay, *};

    fn peer(n: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_member_is_online_while_it_is_heard_and_not_once_its_link_breaks() {
        let (mut lives, start) = (Lives::default(), Instant::now() + secs(1000));
        let (own, from, all) = (peer(0), peer(9), [peer(1), peer(2)]);
        assert!(!lives.is_online(start, &peer(1)), "nobody has said so");
        assert!(lives.heard(start, peer(1)));
        assert!(lives.is_online(start + ONLINE - secs(1), &peer(1)));
        assert!(!lives.is_online(start + ONLINE, &peer(1)));
        assert_eq!(lives.next(), Some(start + ONLINE));
        assert!(lives.expire(start + ONLINE) && !lives.expire(start + ONLINE));

        // Its link breaks: at once, and what others heard of it before does not bring it back.
        lives.heard(start + secs(100), peer(1));
        lives.missed(start + secs(110), peer(1));
        assert!(!lives.is_online(start + secs(110), &peer(1)));
        lives.learn(start + secs(111), (&own, &from), all.iter(), &[20]);
        assert!(!lives.is_online(start + secs(111), &peer(1)), "heard 10 s ago, and missed 1 s ago");
        assert!(lives.learn(start + secs(120), (&own, &from), all.iter(), &[4]), "heard since");
        assert!(lives.is_online(start + secs(120), &peer(1)));
    }

    #[test]
    fn what_another_says_of_itself_of_us_or_of_long_ago_is_not_taken() {
        let (mut lives, now) = (Lives::default(), Instant::now() + secs(1000));
        let (own, from) = (peer(0), peer(1));
        let all = [own, from, peer(2), peer(3)];
        assert!(!lives.learn(now, (&own, &from), all.iter(), &[0, 0, SILENT, 150, 0, 0]));
        assert!(all.iter().all(|peer| !lives.is_online(now, peer)));
        assert!(lives.learn(now, (&own, &from), all.iter(), &[0, 0, 149]));
        assert!(lives.is_online(now, &peer(2)) && !lives.is_online(now + secs(1), &peer(2)), "it is as old as it was");
        assert_eq!(lives.tell(now, &own, all.iter()), [0, SILENT, 149]);
    }

    struct World {
        all: Vec<PeerId>,
        lives: Vec<Lives>,
        /// Who dials whom, and when they speak next.
        links: Vec<(usize, usize, Instant)>,
        random: u64,
    }

    impl World {
        fn new(size: u32, start: Instant) -> Self {
            let all: Vec<PeerId> = (0..size).map(peer).collect();
            let mut world =
                Self { lives: all.iter().map(|_| Lives::default()).collect(), all, links: vec![], random: 7 };
            for (at, own) in world.all.clone().iter().enumerate() {
                for other in overlay::neighbours(&NetworkId::OPEN, own, &world.all.clone()) {
                    let first = start + Duration::from_millis(world.dice() % 20_000);
                    let to = world.all.iter().position(|peer| *peer == other).unwrap();
                    world.links.push((at, to, first));
                }
            }
            world
        }

        fn dice(&mut self) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random
        }

        /// Everybody speaks on its links until then; one that is `gone` does not answer.
        fn run(&mut self, until: Instant, gone: Option<usize>) {
            loop {
                let next = (0..self.links.len()).min_by_key(|link| self.links[*link].2).unwrap();
                let (from, to, now) = self.links[next];
                if now > until {
                    return;
                }
                self.links[next].2 = overlay::keepalive(now, self.dice());
                if gone.is_some_and(|gone| gone == from) {
                    continue;
                }
                if gone.is_some_and(|gone| gone == to) {
                    let id = self.all[to];
                    self.lives[from].missed(now + secs(5), id);
                    continue;
                }
                for (from, to) in [(from, to), (to, from)] {
                    let (speaker, listener) = (self.all[from], self.all[to]);
                    let said = self.lives[from].tell(now, &speaker, self.all.iter());
                    self.lives[to].heard(now, speaker);
                    self.lives[to].learn(now, (&listener, &speaker), self.all.iter(), &said);
                }
            }
        }

        fn online(&self, now: Instant, of: usize) -> usize {
            let id = self.all[of];
            self.lives.iter().enumerate().filter(|(at, lives)| *at == of || lives.is_online(now, &id)).count()
        }
    }

    #[test]
    fn who_is_there_is_online_everywhere_and_who_is_not_is_soon_nowhere() {
        for size in [2_u32, 5, 30, 150] {
            let start = Instant::now() + secs(1000);
            let mut world = World::new(size, start);
            let all = size as usize;
            // From a minute after the start on everybody is online for everybody, all the time.
            for second in (60..240).step_by(3) {
                let now = start + secs(second);
                world.run(now, None);
                for of in 0..all {
                    assert_eq!(world.online(now, of), all, "{size} members, after {second} s");
                }
            }
            let cut = start + secs(240);
            world.run(cut + secs(30), Some(0));
            let linked = world.links.iter().filter(|(_, to, _)| *to == 0).count();
            assert!(world.online(cut + secs(31), 0) <= all - linked, "those that dial it know");
            world.run(cut + ONLINE, Some(0));
            assert_eq!(world.online(cut + ONLINE + secs(1), 0), 1, "{size} members: only itself");
            assert_eq!(world.online(cut + ONLINE, all - 1), if size == 2 { 1 } else { all - 1 }, "nobody else");
        }
    }
}
