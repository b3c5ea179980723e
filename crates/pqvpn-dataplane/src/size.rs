// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long datagrams to a peer may be, as the control side found out, and what local senders are told of it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    stats::{DropCounters, DropReason, Stamp},
    table::lock,
};

/// What a path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSize {
    /// Longest tunnel datagram, without a relay header: a longer inner packet goes in pieces.
    pub carry: u16,
    /// Longest inner packet that local senders should send: they are told so.
    pub advise: u16,
    /// Whether it is known that the path does not carry the datagrams QUIC needs: links go in pieces.
    pub narrow: bool,
}

impl Default for PathSize {
    /// Of no known limit.
    fn default() -> Self {
        Self { carry: u16::MAX, advise: u16::MAX, narrow: false }
    }
}

/// Datagrams up to this length are taken to pass everywhere.
pub const SURE_LEN: usize = 500;

/// How often the control side hears that longer ones are sent.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(500);
/// How often a sender is told that its packets are too long.
pub(crate) const TOO_BIG_EVERY: Duration = Duration::from_millis(20);
/// How often the control side hears that the system refused a datagram as too long.
pub(crate) const REFUSED_EVERY: Duration = Duration::from_millis(100);
/// Words to local senders that wait for the interface.
const NOTICES: usize = 32;

/// The size of a peer's path as the packet threads share it.
#[derive(Debug)]
pub(crate) struct Size {
    carry: AtomicU16,
    advise: AtomicU16,
    /// When the control side last heard that it is made use of.
    pub(crate) used: Stamp,
    /// When a local sender was last told.
    pub(crate) told: Stamp,
    /// When the control side last heard that the system refused a datagram as too long.
    pub(crate) refused: Stamp,
}

impl Default for Size {
    fn default() -> Self {
        let PathSize { carry, advise, .. } = PathSize::default();
        Self {
            carry: AtomicU16::new(carry),
            advise: AtomicU16::new(advise),
            used: Stamp::default(),
            told: Stamp::default(),
            refused: Stamp::default(),
        }
    }
}

impl Size {
    pub(crate) fn set(&self, size: PathSize) {
        self.carry.store(size.carry, Relaxed);
        self.advise.store(size.advise, Relaxed);
    }

    pub(crate) fn carry(&self) -> usize {
        usize::from(self.carry.load(Relaxed))
    }

    /// Longest inner packet, `None` while nobody is to be told anything.
    pub(crate) fn advise(&self) -> Option<usize> {
        let advise = self.advise.load(Relaxed);
        (advise < u16::MAX).then_some(usize::from(advise))
    }
}

/// Packets of our own making on their way to the interface, which belongs to an inbound thread.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<Vec<Vec<u8>>>);

impl Notices {
    /// Leaves a packet; dropped and counted when too many wait, since there will be an occasion again.
    pub(crate) fn push(&self, packet: Vec<u8>, drops: &DropCounters) {
        let mut waiting = lock(&self.0);
        if waiting.len() < NOTICES {
            waiting.push(packet);
        } else {
            drops.count(DropReason::NoticeOverflow);
        }
    }

    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Drops;

    #[test]
    fn words_to_local_senders_are_bounded_and_those_left_out_are_counted() {
        let (notices, counters) = (Notices::default(), DropCounters::new());
        for _ in 0..NOTICES + 3 {
            notices.push(vec![0x45], &counters);
        }
        let mut drops = Drops::default();
        counters.add_to(&mut drops);
        assert_eq!((drops.get(DropReason::NoticeOverflow), drops.total()), (3, 3));
        assert_eq!(notices.take().len(), NOTICES);
        notices.push(vec![0x45], &counters);
        assert_eq!(notices.take().len(), 1, "there is room again");
    }
}
