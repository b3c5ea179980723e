// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes to start from: who names them, whether they answered, and which to try next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;

use super::report::{DhtError, DoorReport, DoorSource, DoorState, GoneDoor, NewDoor};
use crate::path::is_relayed;

/// Addresses kept of one door.
pub const MAX_DOOR_ADDRESSES: usize = 4;
/// Doors kept.
pub const MAX_DOORS: usize = 256;
/// First and longest pause between two rounds of knocking while nobody answers.
const KNOCK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Doors knocked at in one round.
const ROUND: usize = 8;

#[derive(Debug)]
struct Door {
    endpoints: Vec<String>,
    sources: BTreeSet<DoorSource>,
    expires_ms: Option<u64>,
    answered: Option<Instant>,
    failed: Option<(Instant, String)>,
    verified_ms: Option<u64>,
    /// Where the last handshake that we began succeeded.
    answered_at: Option<SocketAddr>,
    knocked: u64,
}

impl Door {
    const fn is_working(&self) -> bool {
        self.answered.is_some() && self.failed.is_none()
    }
}

/// All doors, and when to knock again.
#[derive(Debug)]
pub(super) struct Doors {
    own: PeerId,
    doors: BTreeMap<PeerId, Door>,
    pause: Duration,
    next_round: Option<Instant>,
    rounds: u64,
}

/// A door to be resolved and asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Knock {
    pub(super) peer: PeerId,
    pub(super) endpoints: Vec<String>,
}

impl Doors {
    pub(super) fn new(own: PeerId) -> Self {
        Self { own, doors: BTreeMap::new(), pause: KNOCK.0, next_round: None, rounds: 0 }
    }

    /// Adds doors, all or none; gives how many were new. They are tried at once.
    ///
    /// # Errors
    /// One is not usable, or there are too many.
    pub(super) fn add(&mut self, now: Instant, doors: Vec<NewDoor>) -> Result<usize, DhtError> {
        for door in &doors {
            self.check(door)?;
        }
        let new: BTreeSet<PeerId> =
            doors.iter().map(|door| door.peer).filter(|peer| !self.doors.contains_key(peer)).collect();
        if self.doors.len() + new.len() > MAX_DOORS {
            return Err(DhtError::TooManyDoors(MAX_DOORS));
        }
        for door in doors {
            self.put(door);
        }
        if !self.doors.is_empty() {
            self.knock_at_once(now);
        }
        Ok(new.len())
    }

    /// Somebody names these doors no more: those nobody else names are gone; gives how many.
    pub(super) fn remove(&mut self, gone: &[GoneDoor]) -> usize {
        let before = self.doors.len();
        for GoneDoor { peer, endpoint, source, wholly } in gone {
            let Some(door) = self.doors.get_mut(peer) else { continue };
            if *wholly {
                door.sources.remove(source);
            }
            // Another may name the same address.
            if door.sources.iter().all(|other| other == source) {
                door.endpoints.retain(|other| other != endpoint);
            }
            if door.sources.is_empty() || door.endpoints.is_empty() {
                self.doors.remove(peer);
            }
        }
        before - self.doors.len()
    }

    /// A hint from the local network or an earlier run: taken if there is room.
    pub(super) fn hint(&mut self, now: Instant, door: NewDoor) {
        if self.check(&door).is_ok() && (self.doors.len() < MAX_DOORS || self.doors.contains_key(&door.peer)) {
            let is_new = !self.doors.contains_key(&door.peer);
            self.put(door);
            if is_new {
                self.knock_at_once(now);
            }
        }
    }

    /// When a handshake proved a door in an earlier run.
    pub(super) fn was_verified(&mut self, peer: &PeerId, verified_ms: Option<u64>) {
        if let Some(door) = self.doors.get_mut(peer) {
            door.verified_ms = door.verified_ms.max(verified_ms);
        }
    }

    fn check(&self, door: &NewDoor) -> Result<(), DhtError> {
        if door.peer == self.own {
            return Err(DhtError::BadDoor("a node cannot start from itself".to_owned()));
        }
        if door.endpoints.is_empty() {
            return Err(DhtError::BadDoor(format!("{} has no address", door.peer.short())));
        }
        Ok(())
    }

    fn put(&mut self, new: NewDoor) {
        let NewDoor { peer, mut endpoints, source, expires_ms } = new;
        endpoints.truncate(MAX_DOOR_ADDRESSES);
        let door = self.doors.entry(peer).or_insert_with(|| Door {
            endpoints: Vec::new(),
            sources: BTreeSet::new(),
            expires_ms,
            answered: None,
            failed: None,
            verified_ms: None,
            answered_at: None,
            knocked: 0,
        });
        let only_remembered = door.sources.iter().all(|source| *source == DoorSource::Cache);
        // What is said now counts more than what is remembered.
        let rest = std::mem::take(&mut door.endpoints);
        let (first, then) =
            if source == DoorSource::Cache && !only_remembered { (rest, endpoints) } else { (endpoints, rest) };
        for endpoint in first.into_iter().chain(then) {
            if door.endpoints.len() < MAX_DOOR_ADDRESSES && !door.endpoints.contains(&endpoint) {
                door.endpoints.push(endpoint);
            }
        }
        // Named without a limit by anybody, it has none.
        door.expires_ms = if door.sources.is_empty() {
            expires_ms
        } else {
            door.expires_ms.zip(expires_ms).map(|(one, other)| one.max(other))
        };
        door.sources.insert(source);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// Doors, and those of them that work: they answered, and have not failed since.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.doors.len(), self.doors.values().filter(|door| door.is_working()).count())
    }

    /// Whether somebody this node trusts to say so (not a stranger) named the door.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.doors.contains_key(peer)
    }

    /// Where a door is said to be.
    pub(super) fn endpoints(&self, peer: &PeerId) -> &[String] {
        self.doors.get(peer).map_or(&[], |door| &door.endpoints)
    }

    /// Knocks at once, and begins with short pauses again.
    pub(super) fn knock_at_once(&mut self, now: Instant) {
        self.pause = KNOCK.0;
        self.next_round = Some(now);
    }

    /// Somebody answers: no more knocking.
    pub(super) fn rest(&mut self) {
        self.pause = KNOCK.0;
        self.next_round = None;
    }

    /// When the next round is due.
    pub(super) const fn next_round(&self) -> Option<Instant> {
        self.next_round
    }

    /// The doors of the next round, if it is due: those not tried for longest, and expired ones only if there is no other.
    pub(super) fn round(&mut self, now: Instant, unix_ms: u64) -> Vec<Knock> {
        if self.doors.is_empty() || self.next_round.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_round = Some(now + self.pause);
        self.pause = (self.pause * 2).min(KNOCK.1);
        self.rounds += 1;
        let is_fresh = |door: &Door| door.expires_ms.is_none_or(|expires| expires > unix_ms);
        let any_fresh = self.doors.values().any(is_fresh);
        let mut usable: Vec<(&PeerId, &mut Door)> =
            self.doors.iter_mut().filter(|(_, door)| !any_fresh || is_fresh(door)).collect();
        usable.sort_by_key(|(peer, door)| (door.knocked, **peer));
        let round = self.rounds;
        let knock = |(peer, door): (&PeerId, &mut Door)| {
            door.knocked = round;
            Knock { peer: *peer, endpoints: door.endpoints.clone() }
        };
        usable.into_iter().take(ROUND).map(knock).collect()
    }

    /// A door answered a signed request.
    pub(super) fn answered(&mut self, now: Instant, peer: &PeerId) {
        if let Some(door) = self.doors.get_mut(peer) {
            (door.answered, door.failed) = (Some(now), None);
        }
    }

    /// A handshake proved that the identity answers at an address of the door.
    pub(super) fn verified(&mut self, peer: &PeerId, at: SocketAddr, unix_ms: u64) {
        if let Some(door) = self.doors.get_mut(peer) {
            door.verified_ms = Some(unix_ms);
            // The address of a way is no place.
            if !is_relayed(at) {
                door.answered_at = Some(SocketAddr::new(at.ip().to_canonical(), at.port()));
            }
        }
    }

    /// A door did not answer.
    pub(super) fn failed(&mut self, now: Instant, peer: &PeerId, why: String) {
        if let Some(door) = self.doors.get_mut(peer) {
            door.failed = Some((now, why));
        }
    }

    /// A dial found nobody: where it answered before is no longer known to be right.
    pub(super) fn unreachable(&mut self, now: Instant, peer: &PeerId, why: String) {
        if let Some(door) = self.doors.get_mut(peer) {
            (door.failed, door.answered_at) = (Some((now, why)), None);
        }
    }

    /// When a handshake last proved a peer.
    pub(super) fn verified_ms(&self, peer: &PeerId) -> Option<u64> {
        self.doors.get(peer).and_then(|door| door.verified_ms)
    }

    /// All of them, for people.
    pub(super) fn report(&self, now: Instant) -> Vec<DoorReport> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let line = |(peer, door): (&PeerId, &Door)| DoorReport {
            peer: *peer,
            endpoints: door.endpoints.clone(),
            sources: door.sources.iter().copied().collect(),
            expires_ms: door.expires_ms,
            state: match (&door.failed, door.answered) {
                (Some((at, why)), _) => DoorState::Failed { age: age(*at), why: why.clone() },
                (None, Some(at)) => DoorState::Working { age: age(at) },
                (None, None) => DoorState::Untried,
            },
            verified_ms: door.verified_ms,
            answered_at: door.answered_at,
        };
        self.doors.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: PeerId = PeerId::from_bytes([0; 32]);

    fn door(n: u16, source: DoorSource) -> NewDoor {
        let mut id = [1; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NewDoor { peer: PeerId::from_bytes(id), endpoints: vec![format!("192.0.2.1:{n}")], source, expires_ms: None }
    }

    #[test]
    fn doors_are_bounded_and_a_bad_one_spoils_the_batch() {
        let now = Instant::now();
        let mut doors = Doors::new(OWN);
        let itself = NewDoor { peer: OWN, ..door(1, DoorSource::User) };
        assert!(matches!(doors.add(now, vec![door(1, DoorSource::User), itself]), Err(DhtError::BadDoor(_))));
        assert!(doors.is_empty());
        let nowhere = NewDoor { endpoints: vec![], ..door(1, DoorSource::User) };
        assert!(matches!(doors.add(now, vec![nowhere]), Err(DhtError::BadDoor(_))));
        let many = u16::try_from(MAX_DOORS).unwrap();
        assert_eq!(doors.add(now, (0..many).map(|n| door(n, DoorSource::List)).collect()), Ok(MAX_DOORS));
        assert_eq!(doors.add(now, vec![door(0, DoorSource::User)]), Ok(0), "a known one is not new");
        assert_eq!(doors.add(now, vec![door(many, DoorSource::User)]), Err(DhtError::TooManyDoors(MAX_DOORS)));
        doors.hint(now, door(many, DoorSource::Lan));
        assert_eq!(doors.counts().0, MAX_DOORS);
        assert_eq!(doors.report(now)[0].sources, [DoorSource::List, DoorSource::User]);
    }

    #[test]
    fn knocking_goes_round_and_slows_down() {
        let now = Instant::now();
        let mut doors = Doors::new(OWN);
        assert_eq!(doors.round(now, 0), Vec::new());
        doors.add(now, (0..20).map(|n| door(n, DoorSource::Config)).collect()).unwrap();
        let mut seen = BTreeSet::new();
        let mut at = now;
        for _ in 0..3 {
            let round = doors.round(at, 0);
            assert!(round.len() <= ROUND);
            seen.extend(round.into_iter().map(|knock| knock.peer));
            assert_eq!(doors.round(at, 0), Vec::new(), "not twice");
            at = doors.next_round().unwrap();
        }
        assert_eq!(seen.len(), 20);
        for _ in 0..20 {
            let _round = doors.round(at, 0);
            let next = doors.next_round().unwrap();
            assert!(next - at <= KNOCK.1);
            at = next;
        }
        doors.rest();
        assert_eq!(doors.next_round(), None);
    }

    #[test]
    fn a_door_works_until_it_fails_and_is_where_the_handshake_was() {
        let (now, at) = (Instant::now(), "192.0.2.9:7".parse().unwrap());
        let (mut doors, new) = (Doors::new(OWN), door(1, DoorSource::User));
        let peer = new.peer;
        doors.add(now, vec![new]).unwrap();
        assert_eq!((doors.counts(), doors.report(now)[0].answered_at), ((1, 0), None));
        doors.verified(&peer, "[::ffff:192.0.2.9]:7".parse().unwrap(), 5);
        doors.answered(now, &peer);
        assert_eq!((doors.counts(), doors.report(now)[0].answered_at), ((1, 1), Some(at)));
        doors.verified(&peer, pqvpn_dataplane::way::WayId(7).address(), 6);
        assert_eq!(doors.report(now)[0].answered_at, Some(at), "a way is no place");
        doors.failed(now, &peer, "busy".to_owned());
        assert_eq!((doors.counts(), doors.report(now)[0].answered_at), ((1, 0), Some(at)), "the link may be well");
        doors.unreachable(now, &peer, "nobody".to_owned());
        // It dials us: it works, and where it can be dialed is not known.
        doors.answered(now, &peer);
        assert_eq!((doors.counts(), doors.report(now)[0].answered_at), ((1, 1), None));
    }

    #[test]
    fn a_door_is_gone_when_nobody_names_it_any_more() {
        let now = Instant::now();
        let mut doors = Doors::new(OWN);
        let peer = door(1, DoorSource::User).peer;
        let two = vec!["a.example:1".to_owned(), "b.example:1".to_owned()];
        doors.add(now, vec![NewDoor { endpoints: two, ..door(1, DoorSource::User) }]).unwrap();
        let gone = |endpoint: &str, wholly| {
            [GoneDoor { peer, endpoint: endpoint.to_owned(), source: DoorSource::User, wholly }]
        };
        assert_eq!(doors.remove(&gone("a.example:1", false)), 0);
        assert_eq!(doors.endpoints(&peer), ["b.example:1"]);
        doors.add(now, vec![door(1, DoorSource::Lan)]).unwrap();
        assert_eq!(doors.remove(&gone("b.example:1", true)), 0, "it announces itself nearby");
        assert!(doors.contains(&peer));
        assert_eq!(doors.remove(&[GoneDoor { source: DoorSource::Lan, ..gone("x", true)[0].clone() }]), 1);
        assert!(!doors.contains(&peer));
        assert_eq!(doors.remove(&gone("a.example:1", true)), 0);
    }

    #[test]
    fn an_expired_door_is_the_last_resort() {
        let now = Instant::now();
        let mut doors = Doors::new(OWN);
        let old = NewDoor { expires_ms: Some(1000), ..door(1, DoorSource::List) };
        doors.add(now, vec![old.clone()]).unwrap();
        assert_eq!(doors.round(now, 5000).len(), 1, "better than none");
        doors.add(now, vec![door(2, DoorSource::List)]).unwrap();
        assert_eq!(doors.round(now, 5000).iter().map(|k| k.peer).collect::<Vec<_>>(), [door(2, DoorSource::List).peer]);
        doors.add(now, vec![NewDoor { expires_ms: None, source: DoorSource::User, ..old }]).unwrap();
        assert_eq!(doors.round(now, 5000).len(), 2, "a person named it without a limit");
    }
}
