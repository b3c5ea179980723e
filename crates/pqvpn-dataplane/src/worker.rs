// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packet threads of a queue. While traffic is light one does both directions, so that what answers a packet finds it
//! awake; a second one takes the outbound direction over when there is more, or when a full socket keeps it waiting.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    event::Event,
    inbound::{Inbound, Sources},
    inject::Injected,
    look::Look,
    moderation::{LONE, Moderation},
    outbound::Outbound,
    plane::Shared,
    sys::{Waited, wait},
    table::View,
    tun::READ_BATCH,
    udp::RecvBatch,
};

/// How often the first thread looks whether there is too much for it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often the second one looks whether it is needed.
const NEEDED_EVERY: Duration = Duration::from_millis(100);
/// Bytes in a millisecond from which two threads do more than one (100 Mbit/s).
const HEAVY: usize = 12_500;
/// Bytes in a millisecond below which one is enough again.
const LIGHT: usize = HEAVY / 2;

/// Batches after which the second thread looks up from a queue that does not run dry: somebody else's packets may wait.
const LOOK_UP_EVERY: u32 = 16;

/// What ended a thread, and whose fault it is.
struct Failure {
    what: &'static str,
    error: io::Error,
}

fn of_tun(error: io::Error) -> Failure {
    Failure { what: "tun", error }
}

fn of_udp(error: io::Error) -> Failure {
    Failure { what: "udp", error }
}

/// The first thread of a queue: both directions, or the inbound one.
pub(crate) struct First {
    shared: Arc<Shared>,
    queue: usize,
    inbound: Inbound,
    /// `None` while the second thread has it.
    outbound: Option<Box<Outbound>>,
    batch: RecvBatch,
    injected: Injected,
    load: Load,
    look: Look,
}

/// What went through in a while.
struct Load {
    since: Instant,
    bytes: usize,
}

impl Load {
    /// Whether it was too much for one thread, once in a while.
    fn is_heavy(&mut self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.since);
        if time < LOOK_EVERY {
            return false;
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.since = now;
        is_over(HEAVY, bytes, time)
    }
}

/// Whether `bytes` in `time` are more than `limit` in a millisecond.
fn is_over(limit: usize, bytes: usize, time: Duration) -> bool {
    bytes as u128 * 1000 > limit as u128 * time.as_micros()
}

impl First {
    pub(crate) fn new(shared: Arc<Shared>, queue: usize, inbound: Inbound, outbound: Outbound) -> Self {
        Self {
            shared,
            queue,
            inbound,
            outbound: Some(Box::new(outbound)),
            batch: RecvBatch::new(),
            injected: Injected::default(),
            load: Load { since: clock::now(), bytes: 0 },
            look: Look::default(),
        }
    }

    /// Runs until the data plane stops, or the device or a socket fails.
    pub(crate) fn run(mut self) {
        while !self.shared.stopping() {
            let mut sources = self.inbound.sources();
            if let Err(Failure { what, error }) = self.serve(&mut sources) {
                return self.shared.emit(Event::Failed { what, error });
            }
        }
    }

    /// Runs until the sockets change, or the outbound direction comes or goes.
    fn serve(&mut self, sources: &mut Sources) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let mut view = View::new(&shared.tables);
        let device = self.outbound.as_ref().map(|outbound| outbound.fd().try_clone_to_owned());
        let device: Option<OwnedFd> = device.transpose().map_err(of_tun)?;
        let outward = device.iter().flat_map(|fd| [shared.outbound_wakes[self.queue].fd(), fd.as_fd()]);
        let sockets: Vec<_> = sources.list.iter().map(|source| Arc::clone(&source.socket)).collect();
        let wake = &shared.inbound_wakes[self.queue];
        let mut waited = vec![Waited::readable(wake.fd())];
        waited.extend(outward.map(Waited::readable));
        waited.extend(sockets.iter().map(|socket| Waited::readable(socket.fd())));
        while !shared.stopping() && !self.inbound.is_outdated(sources) {
            // Asked for every batch: under load it returns at once, and idle no socket is tried in vain on the way.
            self.wait(&mut waited, sockets.len())?;
            let mut received = 0;
            if waited[0].ready {
                wake.clear();
                received += self.inbound.woken(&mut self.injected, &mut view);
                if self.outbound.is_none() && self.take_back() {
                    return Ok(());
                }
            }
            let (before, ready) = waited.split_at(waited.len() - sockets.len());
            for (_, source) in ready.iter().zip(&mut sources.list).filter(|(waited, _)| waited.ready) {
                received += self.inbound.step(&mut self.batch, source, &mut view).map_err(of_udp)?;
            }
            match &mut self.outbound {
                Some(outbound) => {
                    if before[1].ready {
                        shared.outbound_wakes[self.queue].clear();
                        outbound.woken(view.load());
                    }
                    // What the host answers at once, as TCP and echoes, it has answered by now.
                    let is_ready = before[2].ready || received > 0;
                    let sent = if is_ready { send(outbound, &mut view).map_err(of_tun)? } else { 0 };
                    self.load.bytes += received + sent;
                    let now = clock::now();
                    self.look.note(sent > 0 && received == 0, now);
                    if self.lend(now) {
                        return Ok(());
                    }
                }
                None => shared.loans[self.queue].note_received(received),
            }
        }
        Ok(())
    }

    /// Waits for anything; of the last `sockets` of `waited` answers come.
    fn wait(&mut self, waited: &mut [Waited<'_>], sockets: usize) -> Result<(), Failure> {
        let before = waited.len() - sockets;
        let is_ready = |waited: &[Waited<'_>]| waited.iter().any(|waited| waited.ready);
        let mut looks = self.look.is_worth();
        let mut ready = false;
        while looks {
            // Whoever is to answer may need this processor.
            std::thread::yield_now();
            wait(waited, 0).map_err(of_udp)?;
            ready = is_ready(waited);
            // Also where something is there: who was away for long found it by luck.
            looks = self.look.again(clock::now()) && !ready;
        }
        if !ready {
            wait(waited, -1).map_err(of_udp)?;
        }
        if self.look.is_open() {
            self.look.came(is_ready(&waited[before..]), clock::now());
        }
        Ok(())
    }

    /// Hands the outbound direction to the second thread if there is too much to do for one.
    fn lend(&mut self, now: Instant) -> bool {
        let is_heavy = self.load.is_heavy(now);
        let lent = self.outbound.take_if(|outbound| outbound.take_waited() || is_heavy);
        let is_lent = lent.is_some();
        if let Some(outbound) = lent {
            self.shared.loans[self.queue].lend(outbound);
        }
        is_lent
    }

    fn take_back(&mut self) -> bool {
        self.outbound = self.shared.loans[self.queue].take_back();
        self.outbound.is_some()
    }
}

/// Sends what is there; gives the bytes. A first packet is likely to be alone: it leaves before another one is asked for.
fn send(outbound: &mut Outbound, view: &mut View<'_>) -> io::Result<usize> {
    let first = outbound.step(1, view)?;
    // Where the socket is full, the other direction does not wait any longer for this one.
    Ok(if first == 0 || outbound.has_waited() { first } else { first + outbound.step(READ_BATCH, view)? })
}

/// The second thread of a queue.
pub(crate) struct Second {
    shared: Arc<Shared>,
    queue: usize,
}

impl Second {
    pub(crate) const fn new(shared: Arc<Shared>, queue: usize) -> Self {
        Self { shared, queue }
    }

    /// Does the outbound direction whenever it is lent, until the data plane stops or the device fails.
    pub(crate) fn run(self) {
        let loan = &self.shared.loans[self.queue];
        let borrowed = || loan.borrowed(|| self.shared.stopping()).map_err(of_tun);
        loop {
            let served = match borrowed() {
                Ok(Some(outbound)) => self.serve(outbound),
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            if let Err(Failure { what, error }) = served {
                return self.shared.emit(Event::Failed { what, error });
            }
        }
    }

    /// Runs until there is so little to do that one thread is enough.
    fn serve(&self, mut outbound: Box<Outbound>) -> Result<(), Failure> {
        let mut view = View::new(&self.shared.tables);
        let wake = &self.shared.outbound_wakes[self.queue];
        let loan = &self.shared.loans[self.queue];
        let (mut since, mut bytes, mut turns) = (clock::now(), 0, 1_u32);
        let mut moderation = Moderation::new(since);
        while !self.shared.stopping() {
            let sent = outbound.step(READ_BATCH, &mut view).map_err(of_tun)?;
            bytes += sent;
            moderation.note(outbound.packets_of(LONE));
            let is_dry = sent == 0 || outbound.was_last();
            if !is_dry && !turns.is_multiple_of(LOOK_UP_EVERY) {
                turns += 1;
                continue;
            }
            turns = 1;
            let now = clock::now();
            let time = now.saturating_duration_since(since);
            if time >= NEEDED_EVERY {
                let all = std::mem::take(&mut bytes) + loan.take_received();
                if !outbound.take_waited() && !is_over(LIGHT, all, time) {
                    break;
                }
                since = now;
            }
            let pause = if is_dry && sent > 0 { moderation.pause(now) } else { None };
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
            let mut waited = [Waited::readable(outbound.fd()), Waited::readable(wake.fd())];
            wait(&mut waited, if is_dry && pause.is_none() { -1 } else { 0 }).map_err(of_tun)?;
            if waited[1].ready {
                wake.clear();
                outbound.woken(view.load());
            }
        }
        loan.give_back(outbound);
        self.shared.inbound_wakes[self.queue].wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_while_is_heavy_by_its_bytes_and_judged_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut load = Load { since: start, bytes: 9 * HEAVY };
        assert!(!load.is_heavy(at(9)), "too early to say");
        assert!(!load.is_heavy(at(10)));
        load.bytes = 11 * HEAVY;
        assert!(load.is_heavy(at(20)));
        assert!(!load.is_heavy(at(30)), "nothing came since");
    }

    #[test]
    fn one_thread_is_enough_again_at_less_than_what_two_were_needed_for() {
        let second = Duration::from_secs(1);
        assert!(is_over(HEAVY, 12_500_001, second) && !is_over(HEAVY, 12_500_000, second));
        assert!(is_over(LIGHT, 6_250_001, second) && !is_over(LIGHT, 6_250_000, second));
    }
}
