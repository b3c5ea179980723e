// SPDX-License-Identifier: MIT OR Apache-2.0
//! What those who begin a handshake from an unproven address have sent, and were sent: never more than three times as much.
//!
//! Both QUIC stacks begin a datagram while a single byte of that is left, so that their last one may reach beyond. It is not
//! sent, as if it had been lost: the first flights of our own nodes leave room for a whole answer, so only repetitions to
//! somebody who is silent come to that. Handshakes are told apart by the connection id they chose: one that is forged takes
//! nothing from links with the address it forges. Who uses the connection id that was sent there has heard us, and has proven
//! its address (RFC 9000 §8.1). Of these ids a stranger can come to know all but 24 bits; guessing them costs more bytes than
//! the last datagram has.
//!
//! Pure, and bounded by the handshakes under way, ours as well.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;

use super::initial::{Initial, SMALLEST, ids, is_initial};

/// Bytes that may be sent for each received (RFC 9000 §8.1).
const FACTOR: u64 = 3;
/// First packets remembered until their handshake begins. Who would have one forgotten sends more than it could gain.
const RECENT: usize = 1024;
/// Handshakes that one of several first packets to the same connection id may belong to, each of at least [`SMALLEST`].
const ALIKE: usize = 8;

/// A handshake: an address and the connection id that was chosen there, by a hash that nobody else can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handshake(u64);

/// A first packet: its handshake, and the hash of its address and of the connection id it was sent to.
#[derive(Debug, Clone, Copy)]
struct First {
    to: u64,
    handshake: Handshake,
    bytes: u64,
}

/// Bytes of UDP payload of a handshake under way.
#[derive(Debug, Default)]
struct Balance {
    /// Handshakes that chose the same connection id share its balance.
    held: usize,
    received: u64,
    sent: u64,
    /// The connection ids its first packets were sent to, the last few of them.
    firsts: Vec<Vec<u8>>,
    /// The source connection id of what was sent.
    ours: Vec<u8>,
    is_proven: bool,
}

/// The balances of handshakes under way.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    recent: VecDeque<First>,
    balances: HashMap<Handshake, Balance>,
    /// Where we dial just now, and how often.
    dials: HashMap<SocketAddr, usize>,
    hasher: RandomState,
}

impl Unproven {
    fn hash(&self, address: SocketAddr, id: &[u8]) -> u64 {
        self.hasher.hash_one((address, id))
    }

    /// The handshake that an Initial from there belongs to.
    pub(super) fn handshake(&self, from: SocketAddr, initial: &Initial<'_>) -> Handshake {
        Handshake(self.hash(from, initial.from))
    }

    /// Whether an Initial from there goes on with a handshake that was begun here without proof of an address. Which connection id
    /// it is sent to counts, too: else one handshake would be a pass for any number.
    pub(super) fn goes_on(&self, from: SocketAddr, initial: &Initial<'_>) -> bool {
        let goes_on =
            |balance: &Balance| balance.ours == initial.to || balance.firsts.iter().any(|first| first == initial.to);
        self.balances.get(&self.handshake(from, initial)).is_some_and(goes_on)
    }

    /// Whether we dial there.
    pub(super) fn is_dialed(&self, address: SocketAddr) -> bool {
        self.dials.contains_key(&address)
    }

    /// A dial to there begins.
    pub(super) fn dial(&mut self, to: SocketAddr) {
        *self.dials.entry(to).or_default() += 1;
    }

    /// One has ended.
    pub(super) fn end_dial(&mut self, to: SocketAddr) {
        if let Some(dials) = self.dials.get_mut(&to) {
            *dials -= 1;
            if *dials == 0 {
                self.dials.remove(&to);
            }
        }
    }

    /// Something came from there.
    pub(super) fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        let Some((to, chosen)) = ids(datagram) else { return };
        let (handshake, mut bytes) = (Handshake(self.hash(from, chosen)), datagram.len() as u64);
        if let Some(balance) = self.balances.get_mut(&handshake) {
            balance.received = balance.received.saturating_add(bytes);
            balance.is_proven |= !to.is_empty() && balance.ours == to;
            // Counted already.
            bytes = 0;
        }
        if is_initial(datagram) && datagram.len() >= SMALLEST {
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(First { to: self.hash(from, to), handshake, bytes });
        }
    }

    /// The handshakes that a first packet from there to the connection id `to` may belong to.
    fn alike(&self, from: SocketAddr, to: &[u8]) -> Vec<Handshake> {
        let to = self.hash(from, to);
        let mut alike = Vec::new();
        for first in self.recent.iter().filter(|first| first.to == to) {
            if alike.len() < ALIKE && !alike.contains(&first.handshake) {
                alike.push(first.handshake);
            }
        }
        alike
    }

    /// A handshake begins whose first packet came from there, sent to the connection id `to`: what is limited until it ends.
    /// Nothing, where no such packet is remembered.
    pub(super) fn begin(&mut self, from: SocketAddr, to: &[u8]) -> Vec<Handshake> {
        let alike = self.alike(from, to);
        for handshake in &alike {
            let balance = self.balances.entry(*handshake).or_default();
            balance.held += 1;
            if balance.firsts.len() >= ALIKE {
                balance.firsts.remove(0);
            }
            balance.firsts.push(to.to_vec());
            for first in self.recent.iter_mut().filter(|first| first.handshake == *handshake) {
                // Each is counted once.
                balance.received = balance.received.saturating_add(std::mem::take(&mut first.bytes));
            }
        }
        let to = self.hash(from, to);
        self.recent.retain(|first| first.to != to);
        alike
    }

    /// The address of a handshake has been proven by a token.
    pub(super) fn prove(&mut self, from: SocketAddr, to: &[u8]) {
        for handshake in self.alike(from, to) {
            if let Some(balance) = self.balances.get_mut(&handshake) {
                balance.is_proven = true;
            }
        }
    }

    /// They have ended, or have proven their address.
    pub(super) fn end(&mut self, handshakes: &[Handshake]) {
        for handshake in handshakes {
            let Some(balance) = self.balances.get_mut(handshake) else { continue };
            balance.held -= 1;
            if balance.held == 0 {
                self.balances.remove(handshake);
            }
        }
    }

    /// How many bytes of `contents`, datagrams of `segment` bytes each but the last, may be sent there. They count as sent.
    pub(super) fn may_send(&mut self, to: SocketAddr, contents: &[u8], segment: Option<usize>) -> usize {
        let whole = contents.len();
        let Some((ours, balance)) = self.balance(to, contents) else { return whole };
        let left = balance.received.saturating_mul(FACTOR).saturating_sub(balance.sent);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let segment = segment.unwrap_or(whole).max(1);
        let may = if whole <= left { whole } else { left / segment * segment };
        balance.sent += may as u64;
        if may > 0 && balance.ours.is_empty() {
            balance.ours = ours.to_vec();
        }
        may
    }

    /// They were not sent after all.
    pub(super) fn unsent(&mut self, to: SocketAddr, contents: &[u8], bytes: usize) {
        if let Some((_, balance)) = self.balance(to, contents) {
            balance.sent = balance.sent.saturating_sub(bytes as u64);
        }
    }

    /// The balance of the handshake that something is to be sent for, and our connection id there; `None` if nothing limits it.
    fn balance<'c>(&mut self, to: SocketAddr, contents: &'c [u8]) -> Option<(&'c [u8], &mut Balance)> {
        if self.balances.is_empty() {
            return None;
        }
        let (chosen, ours) = ids(contents)?;
        let handshake = Handshake(self.hash(to, chosen));
        self.balances.get_mut(&handshake).filter(|balance| !balance.is_proven).map(|balance| (ours, balance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connection ids: what a stranger sends to at first, its own, ours.
    const FIRST: [u8; 8] = [9; 8];
    const THEIRS: [u8; 8] = [1; 8];
    const OURS: [u8; 8] = [7; 8];

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// An Initial of so many bytes.
    fn packet(to: &[u8], from: &[u8], bytes: usize) -> Vec<u8> {
        let length = |id: &[u8]| u8::try_from(id.len()).unwrap();
        let mut packet = [&[0xc0, 0, 0, 0, 1, length(to)], to, &[length(from)], from].concat();
        packet.resize(bytes.max(packet.len()), 0);
        packet
    }

    /// An address that has sent `bytes` and begun a handshake.
    fn begun(bytes: usize) -> (Unproven, Vec<Handshake>) {
        let mut unproven = Unproven::default();
        unproven.received(at(1), &packet(&FIRST, &THEIRS, bytes));
        let handshakes = unproven.begin(at(1), &FIRST);
        assert_eq!(handshakes.len(), 1);
        (unproven, handshakes)
    }

    /// How many of so many bytes may be sent for that handshake.
    fn may(unproven: &mut Unproven, bytes: usize, segment: Option<usize>) -> usize {
        unproven.may_send(at(1), &packet(&THEIRS, &OURS, bytes), segment)
    }

    #[test]
    fn a_handshake_is_sent_whole_datagrams_within_three_times_what_it_sent() {
        let mut unproven = Unproven::default();
        for _ in 0..3 {
            unproven.received(at(1), &packet(&FIRST, &THEIRS, 1200));
        }
        assert_eq!(unproven.begin(at(1), &FIRST).len(), 1);
        assert_eq!(may(&mut unproven, 10_000, Some(1200)), 10_000);
        assert_eq!(may(&mut unproven, 1200, None), 0, "800 are left");
        assert_eq!(may(&mut unproven, 1000, Some(300)), 600, "two whole ones");
        assert_eq!(may(&mut unproven, 200, None), 200);
        assert_eq!(may(&mut unproven, 30, None), 0);
        unproven.unsent(at(1), &packet(&THEIRS, &OURS, 200), 200);
        assert_eq!(may(&mut unproven, 200, None), 200, "the socket was full");
        unproven.received(at(1), &packet(&FIRST, &THEIRS, 30));
        assert_eq!([may(&mut unproven, 91, None), may(&mut unproven, 90, None)], [0, 90]);
    }

    #[test]
    fn what_goes_on_is_known_by_its_address_and_both_its_ids() {
        let (mut unproven, handshakes) = begun(1200);
        let goes_on = |unproven: &Unproven, port, to: &[u8], from: &[u8]| {
            unproven.goes_on(at(port), &Initial::read(&packet(to, from, 1200)).unwrap())
        };
        assert!(goes_on(&unproven, 1, &FIRST, &THEIRS) && !goes_on(&unproven, 1, &OURS, &THEIRS));
        may(&mut unproven, 1200, None);
        assert!(goes_on(&unproven, 1, &FIRST, &THEIRS) && goes_on(&unproven, 1, &OURS, &THEIRS));
        assert!(!goes_on(&unproven, 1, &[8; 8], &THEIRS), "one handshake is no pass for others");
        assert!(!goes_on(&unproven, 2, &FIRST, &THEIRS) && !goes_on(&unproven, 1, &FIRST, &[2; 8]));
        // Of all that chose the same id the last few are known.
        for other in 0..20 {
            unproven.received(at(1), &packet(&[100 + other; 8], &THEIRS, 1200));
            unproven.begin(at(1), &[100 + other; 8]);
        }
        let known = (0..20).filter(|other| goes_on(&unproven, 1, &[100 + other; 8], &THEIRS));
        assert_eq!(known.collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
        for _ in 0..21 {
            unproven.end(&handshakes);
        }
        assert!(!goes_on(&unproven, 1, &OURS, &THEIRS));
    }

    #[test]
    fn a_dial_is_known_until_the_last_to_that_address_has_ended() {
        let mut unproven = Unproven::default();
        unproven.end_dial(at(1));
        unproven.dial(at(1));
        unproven.dial(at(1));
        unproven.end_dial(at(1));
        assert!(unproven.is_dialed(at(1)) && !unproven.is_dialed(at(2)));
        unproven.end_dial(at(1));
        assert!(!unproven.is_dialed(at(1)) && unproven.dials.is_empty());
    }

    #[test]
    fn nothing_else_is_limited_at_an_address_whose_handshake_was_forged() {
        let (mut unproven, handshakes) = begun(1200);
        assert_eq!(may(&mut unproven, 3600, None), 3600);
        assert_eq!(may(&mut unproven, 30, None), 0);
        let mut free = |packet: &[u8]| unproven.may_send(at(1), packet, None) == packet.len();
        assert!(free(&packet(&[2; 8], &OURS, 1200)), "a dial of ours, or another handshake");
        let mut short = packet(&THEIRS, &OURS, 1200);
        short[0] = 0x40;
        assert!(free(&short), "a link");
        assert_eq!(unproven.may_send(at(2), &packet(&THEIRS, &OURS, 1200), None), 1200, "another address");
        unproven.end(&handshakes);
        unproven.end(&handshakes);
        assert_eq!(may(&mut unproven, 1 << 20, None), 1 << 20);
    }

    #[test]
    fn what_came_is_counted_once_and_for_its_handshake() {
        let (mut unproven, first) = begun(2000);
        unproven.received(at(1), &packet(&FIRST, &[2; 8], 5000));
        unproven.received(at(2), &packet(&FIRST, &THEIRS, 5000));
        assert_eq!(may(&mut unproven, 6001, None), 0);
        // The same connection id again, to another one of ours: one balance, until both have ended.
        unproven.received(at(1), &packet(&[8; 8], &THEIRS, 2000));
        let second = unproven.begin(at(1), &[8; 8]);
        assert_eq!(second, first);
        unproven.end(&first);
        assert_eq!([may(&mut unproven, 12_001, None), may(&mut unproven, 12_000, None)], [0, 12_000]);
        unproven.end(&second);
        unproven.received(at(1), &packet(&FIRST, &THEIRS, 1300));
        assert_eq!(unproven.begin(at(1), &FIRST).len(), 2, "another one said the same hello");
        assert_eq!(
            [may(&mut unproven, 3901, None), may(&mut unproven, 3900, None)],
            [0, 3900],
            "nothing is left of before"
        );
        assert_eq!(unproven.begin(at(1), &[3; 8]), []);
    }

    #[test]
    fn no_other_packet_to_the_same_id_takes_the_limit_away() {
        for before in [false, true] {
            let mut unproven = Unproven::default();
            let decoy = |unproven: &mut Unproven, bytes| unproven.received(at(1), &packet(&FIRST, &[2; 8], bytes));
            if before {
                [24, 1200].into_iter().for_each(|bytes| decoy(&mut unproven, bytes));
            }
            unproven.received(at(1), &packet(&FIRST, &THEIRS, 1200));
            if !before {
                [24, 1200].into_iter().for_each(|bytes| decoy(&mut unproven, bytes));
            }
            assert_eq!(unproven.begin(at(1), &FIRST).len(), 2);
            assert_eq!([may(&mut unproven, 3601, None), may(&mut unproven, 3600, None)], [0, 3600]);
        }
        // What is too short for a first packet makes none be forgotten.
        let mut unproven = Unproven::default();
        unproven.received(at(1), &packet(&FIRST, &THEIRS, 1200));
        (0..2 * RECENT as u64).for_each(|id| unproven.received(at(2), &packet(&id.to_be_bytes(), &THEIRS, 1199)));
        assert_eq!(unproven.begin(at(1), &FIRST).len(), 1);
    }

    #[test]
    fn a_token_proves_the_address_of_who_said_hello_without_one_before() {
        let (mut unproven, _) = begun(1200);
        unproven.received(at(1), &packet(&FIRST, &THEIRS, 1200));
        unproven.prove(at(2), &FIRST);
        assert_eq!(may(&mut unproven, 100_000, None), 0);
        unproven.prove(at(1), &FIRST);
        assert_eq!(may(&mut unproven, 100_000, None), 100_000);
    }

    #[test]
    fn who_uses_a_connection_id_that_was_sent_there_has_proven_its_address() {
        let is_limited = |came: &[u8]| {
            let (mut unproven, _) = begun(1200);
            assert_eq!(may(&mut unproven, 3600, Some(1200)), 3600);
            unproven.received(at(1), came);
            may(&mut unproven, 100_000, None) == 0
        };
        assert!(!is_limited(&packet(&OURS, &THEIRS, 60)));
        assert!(is_limited(&packet(&FIRST, &THEIRS, 60)), "that of before");
        assert!(is_limited(&packet(&OURS[1..], &THEIRS, 60)), "a part");
        assert!(is_limited(&packet(&OURS, &[2; 8], 60)), "another handshake's");
        let mut other = packet(&OURS, &THEIRS, 60);
        other[0] = 0x40;
        assert!(is_limited(&other), "no long header");
        (other[0], other[4]) = (0xc0, 2);
        assert!(is_limited(&other), "no version of ours");
        for length in 0..20 {
            is_limited(&packet(&OURS, &THEIRS, 60)[..length]);
        }
    }

    #[test]
    fn what_was_not_sent_or_has_no_id_proves_nothing() {
        let (mut unproven, _) = begun(1200);
        assert_eq!(unproven.may_send(at(1), &packet(&THEIRS, &OURS, 3601), None), 0);
        unproven.received(at(1), &packet(&OURS, &THEIRS, 60));
        assert_eq!(may(&mut unproven, 3781, None), 0);
        assert_eq!(unproven.may_send(at(1), &packet(&THEIRS, &[], 3780), None), 3780);
        unproven.received(at(1), &packet(&[], &THEIRS, 60));
        assert_eq!(may(&mut unproven, 181, None), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut unproven = Unproven::default();
        for port in 0..10_000 {
            unproven.received(at(port), &packet(&FIRST, &THEIRS, 1200));
            let handshakes = unproven.begin(at(port), &FIRST);
            unproven.end(&handshakes);
            unproven.received(at(port), &packet(&FIRST, &THEIRS, 1200));
        }
        assert_eq!((unproven.recent.len(), unproven.balances.len()), (RECENT, 0));
        for id in 0..RECENT as u64 {
            unproven.received(at(1), &packet(&FIRST, &id.to_be_bytes(), 1200));
        }
        assert_eq!((unproven.begin(at(1), &FIRST).len(), unproven.balances.len()), (ALIKE, ALIKE));
    }
}
