// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node relays: sent on out of the receive buffer, whole runs of one size as one message.

use std::{net::IpAddr, ops::Range, sync::Arc, time::Instant};

use crate::{
    plane::Shared,
    stats::{DropCounters, DropReason, Run},
    udp::{Full, SendRuns},
    way::{By, ForwardEntry, Ways},
};

/// What IPv6 and UDP put before a datagram: a limit is on what goes out of the interface.
const HEADERS: usize = 48;

/// Datagrams on their way to other nodes.
pub(super) struct Onward {
    shared: Arc<Shared>,
    queue: usize,
    drops: Arc<DropCounters>,
    runs: SendRuns,
    /// The forward the last datagram went by, and what is still to be added to its counters.
    current: Option<(Arc<ForwardEntry>, Run)>,
    /// Our own address that its datagrams leave from.
    local: Option<IpAddr>,
}

impl Onward {
    pub(super) fn new(shared: Arc<Shared>, queue: usize, drops: Arc<DropCounters>) -> Self {
        Self { shared, queue, drops, runs: SendRuns::new(), current: None, local: None }
    }

    /// Takes the relay datagram at `range` of `storage` that came to our address `local`: it leaves at the next flush.
    pub(super) fn push(
        &mut self,
        forward: &Arc<ForwardEntry>,
        ways: &Ways,
        storage: &mut [u8],
        range: Range<usize>,
        local: Option<IpAddr>,
        now: Instant,
    ) {
        if self.current.as_ref().is_none_or(|(current, _)| !Arc::ptr_eq(current, forward)) {
            self.credit(now);
            forward.near.reached(local);
            self.local = self.shared.underlay.source(forward.far.local());
            self.current = Some((Arc::clone(forward), Run::default()));
        }
        let len = range.len();
        if !forward.admits(len + HEADERS, now) {
            return self.refuse(forward, DropReason::RelayLimited);
        }
        forward.out.write(&mut storage[range.clone()]);
        match ways.direct(forward.to) {
            Some(By::Udp(to)) => {
                if self.runs.is_full() {
                    self.send(storage);
                }
                self.runs.push(to, self.local, range.start, len);
            }
            Some(By::Carrier(carrier)) if carrier.send(&storage[range]) => {}
            Some(By::Carrier(_)) | None => return self.refuse(forward, DropReason::RelaySendError),
        }
        if let Some((_, sent)) = &mut self.current {
            sent.packets += 1;
            sent.bytes += len as u64;
        }
    }

    /// Sends what waits; the storage may be used again after that.
    pub(super) fn flush(&mut self, storage: &[u8], now: Instant) {
        if self.current.is_some() {
            self.send(storage);
            self.credit(now);
        }
    }

    fn send(&mut self, storage: &[u8]) {
        // Everybody's packets wait for this thread.
        let sent = self.runs.flush(storage, &self.shared.underlay.sockets, self.queue, Full::GiveUp);
        if sent.failed > 0 {
            self.drops.count_many(DropReason::RelaySendError, sent.failed);
        }
    }

    fn credit(&mut self, now: Instant) {
        if let Some((forward, sent)) = self.current.take()
            && sent.packets > 0
        {
            forward.add(sent, self.shared.start, now);
        }
    }

    fn refuse(&self, forward: &ForwardEntry, reason: DropReason) {
        self.drops.count(reason);
        forward.add_dropped(1);
    }
}
