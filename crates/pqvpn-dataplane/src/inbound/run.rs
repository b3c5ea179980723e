// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of tunnel packets of one session: the session is locked once, and what they add up to is told at the end.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::Instant,
};

use pqvpn_packet::{
    header::{HEADER_LEN, PacketKind},
    inner::{Inner, Probe},
};

use super::deliver::Deliver;
use crate::{
    event::Event,
    ip,
    plane::Shared,
    session::{OpenError, Opened, RxSession},
    stats::{DropCounters, DropReason, Run},
    table::{Path, Session, Tables, lock},
    udp::RecvMeta,
};

/// Probes of one run that are answered; more are a flood.
const PROBES: usize = 8;

/// The run under way.
pub(super) struct RxRun<'t> {
    pub(super) index: u32,
    session: &'t Arc<Session>,
    rx: MutexGuard<'t, RxSession>,
    opened: Run,
    /// Where the newest packet came from, if the run has the newest of all.
    newest: Option<Path>,
    epoch_seen: Option<u32>,
    forged_out: bool,
    probes: [Option<(Probe, Path)>; PROBES],
    /// The last inner source that was found to be the peer's.
    source: Option<IpAddr>,
    /// The last inner destination that source was found to have a realm in common with.
    destination: Option<IpAddr>,
}

impl<'t> RxRun<'t> {
    pub(super) fn begin(session: &'t Arc<Session>, index: u32) -> Self {
        Self {
            index,
            session,
            rx: lock(&session.rx),
            opened: Run::default(),
            newest: None,
            epoch_seen: None,
            forged_out: false,
            probes: [None; PROBES],
            source: None,
            destination: None,
        }
    }

    /// Opens the packet at `range` of `storage` and hands on what is in it.
    pub(super) fn open(
        &mut self,
        storage: &mut [u8],
        range: Range<usize>,
        meta: &RecvMeta,
        tables: &Tables,
        now: Instant,
        deliver: &mut Deliver,
    ) {
        let path = Path { remote: meta.addr, local: meta.local };
        let (kind, len) = match self.rx.open(now, &mut storage[range.clone()]) {
            Ok(Opened { kind, plaintext, newest, first_of_epoch, .. }) => {
                if newest {
                    self.newest = Some(path);
                }
                self.epoch_seen = first_of_epoch.or(self.epoch_seen);
                (kind, plaintext.len())
            }
            Err(error) => {
                self.forged_out |= matches!(error, OpenError::ForgeryLimit);
                return deliver.drops.count(DropReason::of(&error));
            }
        };
        self.opened.bytes += range.len() as u64;
        self.opened.packets += 1;
        let inner = range.start + HEADER_LEN;
        match Inner::classify(&storage[inner..inner + len]) {
            Ok(Inner::Ip) => self.ip(kind, storage, inner, len, tables, deliver),
            Ok(Inner::Cover) => {}
            Ok(Inner::Probe) => self.probe(&storage[inner..inner + len], path, deliver),
            Ok(Inner::Cell | Inner::Fragment) => deliver.drops.count(DropReason::UnsupportedInner),
            Err(_) => deliver.drops.count(DropReason::MalformedInner),
        }
    }

    /// Ends the run: unlocks the session, adds up the traffic, follows the peer and tells the control side.
    pub(super) fn end(self, shared: &Shared, drops: &DropCounters, now: Instant) {
        let Self { session, rx, opened, newest, epoch_seen, forged_out, probes, .. } = self;
        drop(rx);
        if forged_out && !session.forged_out.swap(true, Ordering::Relaxed) {
            shared.emit(Event::ForgeryLimit { session: session.id });
        }
        if opened.packets == 0 {
            return;
        }
        session.peer.rx.add(opened, shared.start, now);
        if let Some(path) = newest {
            follow(session, path, shared);
        }
        if !session.confirmed.swap(true, Ordering::AcqRel) {
            shared.activate_tx(session.id);
            shared.emit(Event::FirstPacket { session: session.id });
        }
        if let Some(epoch) = epoch_seen {
            shared.emit(Event::EpochSeen { session: session.id, epoch });
        }
        for (probe, path) in probes.into_iter().flatten() {
            answer(session, probe, path, shared, drops, now);
        }
    }

    fn ip(
        &mut self,
        kind: PacketKind,
        storage: &mut [u8],
        offset: usize,
        len: usize,
        tables: &Tables,
        deliver: &mut Deliver,
    ) {
        let Some(source) = ip::source(&storage[offset..offset + len]) else {
            return deliver.drops.count(DropReason::MalformedInner);
        };
        if self.source != Some(source) {
            if tables.routes.lookup(source) != Some(self.session.peer.slot) {
                return deliver.drops.count(DropReason::Spoof);
            }
            (self.source, self.destination) = (Some(source), None);
        }
        if let Some(realms) = &tables.realms {
            let Some(destination) = ip::destination(&storage[offset..offset + len]) else {
                return deliver.drops.count(DropReason::MalformedInner);
            };
            if self.destination != Some(destination) {
                if !realms.meet(source, destination) {
                    return deliver.drops.count(DropReason::Realm);
                }
                self.destination = Some(destination);
            }
        }
        self.opened.data = true;
        if tables.paused {
            return deliver.drops.count(DropReason::Paused);
        }
        deliver.push(kind, storage, offset, len);
    }

    fn probe(&mut self, plaintext: &[u8], path: Path, deliver: &Deliver) {
        let Ok(probe) = Probe::decode(plaintext) else {
            return deliver.drops.count(DropReason::MalformedInner);
        };
        match self.probes.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some((probe, path)),
            None => deliver.drops.count(DropReason::RateLimited),
        }
    }
}

/// Lets the peer's path follow the newest packet of its newest session. What a removed session received says nothing
/// about the ones that are left.
fn follow(session: &Session, path: Path, shared: &Shared) {
    if session.peer.path() == Some(path) || shared.is_outdated(session) {
        return;
    }
    let mut current = lock(&session.peer.path);
    let old = current.replace(path);
    drop(current);
    if let Some(Path { remote: from, .. }) = old
        && from != path.remote
    {
        session.next_remote_index();
        shared.emit(Event::Roamed { peer: session.peer.slot, from, to: path.remote });
    }
}

/// Answers a probe where it came from, or reports an answer.
fn answer(session: &Session, probe: Probe, path: Path, shared: &Shared, drops: &DropCounters, now: Instant) {
    let peer = &session.peer;
    if probe.ack {
        return shared.emit(Event::ProbeAck { peer: peer.slot, id: probe.id, from: path.remote, at: now });
    }
    let Some(datagram) = shared.seal_probe(session, probe.answer(), now) else {
        return drops.count(DropReason::SealRefused);
    };
    match shared.sockets.send_one(path.remote, path.local, None, &datagram) {
        Ok(()) => peer.tx.add(Run { bytes: datagram.len() as u64, packets: 1, data: false }, shared.start, now),
        Err(_) => drops.count(DropReason::SendError),
    }
}
