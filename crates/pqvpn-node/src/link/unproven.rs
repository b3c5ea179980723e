// SPDX-License-Identifier: MIT OR Apache-2.0
//! What addresses that have not proven themselves have sent, and were sent: never more than three times as much.
//!
//! Both QUIC stacks begin a datagram while a single byte of that is left, so that their last one may reach beyond. It is not
//! sent, as if it had been lost: the first flights of our own nodes leave room for a whole answer, so only repetitions to
//! somebody who is silent come to that. Who uses a connection id of ours has heard us there, and has proven its address
//! (RFC 9000 §8.1).
//!
//! Pure, and bounded by the handshakes under way.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

/// Bytes that may be sent for each received (RFC 9000 §8.1).
const FACTOR: u64 = 3;
/// Datagrams remembered until their handshake begins: many times what one poll of the socket brings.
const RECENT: usize = 256;
/// What the first packet of a handshake takes at least (RFC 9000 §14.1).
const SMALLEST_INITIAL: u64 = 1200;

/// Connection ids remembered of one address: as many as it may begin handshakes at once.
const IDS: usize = 8;
/// The longest connection id (RFC 9000 §17.2).
const LONGEST_ID: usize = 20;
/// The shortest that cannot be guessed (RFC 9000 §8.1).
const SHORTEST_ID: usize = 8;

/// Bytes of UDP payload of an address whose handshakes are under way.
#[derive(Debug, Default)]
struct Balance {
    handshakes: usize,
    received: u64,
    sent: u64,
    /// Source connection ids of what was sent there.
    ids: Vec<Vec<u8>>,
    is_proven: bool,
}

impl Balance {
    fn received(&mut self, datagram: &[u8]) {
        self.received = self.received.saturating_add(datagram.len() as u64);
        self.is_proven |= ids(datagram).is_some_and(|(to, _)| self.ids.iter().any(|id| id == to));
    }

    fn learn(&mut self, datagram: &[u8]) {
        let Some((_, from)) = ids(datagram) else { return };
        if from.len() >= SHORTEST_ID && self.ids.len() < IDS && self.ids.iter().all(|id| id != from) {
            self.ids.push(from.to_vec());
        }
    }
}

/// Destination and source connection id of a packet with a long header (RFC 9000 §17.2).
fn ids(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let after = packet.get(5..).filter(|_| packet[0] & 0x80 != 0)?;
    let (to, after) = id(after)?;
    Some((to, id(after)?.0))
}

fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first()?;
    after.split_at_checked(usize::from(*length)).filter(|(id, _)| id.len() <= LONGEST_ID)
}

/// The balances of addresses whose handshakes are under way.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    recent: VecDeque<(SocketAddr, u64)>,
    balances: HashMap<SocketAddr, Balance>,
}

impl Unproven {
    /// Something came from there.
    pub(super) fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(balance) = self.balances.get_mut(&from) {
            balance.received(datagram);
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((from, datagram.len() as u64));
    }

    /// A handshake with this address begins.
    pub(super) fn begin(&mut self, with: SocketAddr) {
        let balance = self.balances.entry(with).or_default();
        balance.handshakes += 1;
        if balance.handshakes == 1 {
            let came = self.recent.iter().filter(|(from, _)| *from == with).map(|(_, bytes)| bytes);
            balance.received = came.sum::<u64>().max(SMALLEST_INITIAL);
            // Counted once, also where the next handshake begins soon.
            self.recent.retain(|(from, _)| *from != with);
        }
    }

    /// One of them has ended, or has proven the address.
    pub(super) fn end(&mut self, with: SocketAddr) {
        let Some(balance) = self.balances.get_mut(&with) else { return };
        balance.handshakes -= 1;
        if balance.handshakes == 0 {
            self.balances.remove(&with);
        }
    }

    /// How many bytes of `contents`, datagrams of `segment` bytes each but the last, may be sent there. They count as sent.
    pub(super) fn may_send(&mut self, to: SocketAddr, contents: &[u8], segment: Option<usize>) -> usize {
        let whole = contents.len();
        let Some(balance) = self.balances.get_mut(&to).filter(|balance| !balance.is_proven) else { return whole };
        let left = balance.received.saturating_mul(FACTOR).saturating_sub(balance.sent);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let segment = segment.unwrap_or(whole).max(1);
        let may = if whole <= left { whole } else { left / segment * segment };
        balance.sent += may as u64;
        if may > 0 {
            balance.learn(contents);
        }
        may
    }

    /// They were not sent after all.
    pub(super) fn unsent(&mut self, to: SocketAddr, bytes: usize) {
        if let Some(balance) = self.balances.get_mut(&to) {
            balance.sent = balance.sent.saturating_sub(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// What may be sent of so many bytes.
    fn may(unproven: &mut Unproven, port: u16, bytes: usize, segment: Option<usize>) -> usize {
        unproven.may_send(at(port), &vec![0; bytes], segment)
    }

    /// An address that has sent `bytes` and begun a handshake.
    fn begun(bytes: usize) -> Unproven {
        let mut unproven = Unproven::default();
        unproven.received(at(1), &vec![0; bytes]);
        unproven.begin(at(1));
        unproven
    }

    /// A packet with a long header.
    fn packet(to: &[u8], from: &[u8]) -> Vec<u8> {
        let length = |id: &[u8]| u8::try_from(id.len()).unwrap();
        [&[0xc0, 0, 0, 0, 1, length(to)], to, &[length(from)], from, &[0; 40]].concat()
    }

    #[test]
    fn an_address_is_sent_whole_datagrams_within_three_times_what_it_sent() {
        let mut unproven = Unproven::default();
        for _ in 0..3 {
            unproven.received(at(1), &[0; 1200]);
        }
        unproven.begin(at(1));
        assert_eq!(may(&mut unproven, 1, 10_000, Some(1200)), 10_000);
        assert_eq!(may(&mut unproven, 1, 1200, None), 0, "800 are left");
        assert_eq!(may(&mut unproven, 1, 1000, Some(300)), 600, "two whole ones");
        assert_eq!(may(&mut unproven, 1, 200, None), 200);
        assert_eq!(may(&mut unproven, 1, 1, None), 0);
        unproven.unsent(at(1), 200);
        assert_eq!(may(&mut unproven, 1, 200, None), 200, "the socket was full");
        unproven.received(at(1), &[0; 30]);
        assert_eq!([may(&mut unproven, 1, 91, None), may(&mut unproven, 1, 90, None)], [0, 90]);
    }

    #[test]
    fn who_has_no_handshake_under_way_is_not_counted() {
        let mut unproven = Unproven::default();
        assert_eq!(may(&mut unproven, 1, 1 << 20, Some(1200)), 1 << 20);
        unproven.begin(at(2));
        assert_eq!(may(&mut unproven, 1, 1 << 20, None), 1 << 20);
        unproven.end(at(2));
        unproven.end(at(2));
        assert_eq!(may(&mut unproven, 2, 1 << 20, None), 1 << 20);
    }

    #[test]
    fn what_came_is_counted_once_and_handshakes_of_one_address_share_it() {
        let mut unproven = begun(2000);
        unproven.begin(at(1));
        assert_eq!(may(&mut unproven, 1, 6000, None), 6000);
        unproven.end(at(1));
        assert_eq!(may(&mut unproven, 1, 1, None), 0, "one is still under way");
        unproven.end(at(1));
        unproven.begin(at(1));
        assert_eq!(may(&mut unproven, 1, 3601, None), 0, "the first packet of a handshake, and no more");
        assert_eq!(may(&mut unproven, 1, 3600, None), 3600);
    }

    #[test]
    fn who_uses_a_connection_id_that_was_sent_there_has_proven_its_address() {
        let (ours, theirs) = ([7; 8], [1; 8]);
        let is_limited = |came: &[u8]| {
            let mut unproven = begun(1200);
            // The server's SCID is learnt from what leaves.
            let left = [packet(&theirs, &ours), vec![0; 3600]].concat();
            assert_eq!(unproven.may_send(at(1), &left, Some(1200)), 3600);
            unproven.received(at(1), came);
            may(&mut unproven, 1, 100_000, None) == 0
        };
        assert!(!is_limited(&packet(&ours, &theirs)));
        assert!(is_limited(&packet(&theirs, &ours)), "its own");
        assert!(is_limited(&packet(&ours[1..], &theirs)), "a part");
        let mut short = packet(&ours, &theirs);
        short[0] = 0x40;
        assert!(is_limited(&short), "no long header");
        for length in 0..short.len() {
            is_limited(&packet(&ours, &theirs)[..length]);
        }
        // Nothing was sent: nothing can be known, not even the empty one.
        let mut unproven = begun(1200);
        unproven.may_send(at(1), &packet(&theirs, &[]), None);
        unproven.received(at(1), &packet(&[], &theirs));
        assert_eq!(may(&mut unproven, 1, 100_000, None), 0);
    }

    #[test]
    fn what_is_not_sent_proves_nothing() {
        let (ours, theirs) = ([7; 8], [1; 8]);
        let mut unproven = begun(1200);
        assert_eq!(may(&mut unproven, 1, 3600, None), 3600);
        assert_eq!(unproven.may_send(at(1), &packet(&theirs, &ours), None), 0);
        unproven.received(at(1), &packet(&ours, &theirs));
        assert_eq!(may(&mut unproven, 1, 100_000, None), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut unproven = Unproven::default();
        for port in 0..10_000 {
            unproven.received(at(port), &[0; 1200]);
            unproven.begin(at(port));
            unproven.end(at(port));
            unproven.received(at(port), &[0; 1200]);
        }
        assert_eq!((unproven.recent.len(), unproven.balances.len()), (RECENT, 0));
        let mut unproven = begun(1 << 20);
        for id in 0..100_u64 {
            unproven.may_send(at(1), &packet(&[], &id.to_be_bytes()), None);
        }
        assert_eq!(unproven.balances[&at(1)].ids.len(), IDS);
    }
}
