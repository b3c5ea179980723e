// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of tunnel packets of one session: the session is locked once, and what they add up to is told at the end.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::Instant,
};

use pqvpn_crypto::header::{LANES, MASK_LEN};
use pqvpn_packet::{
    fragment::Fragment,
    header::{HEADER_LEN, PacketKind, sample_of},
    inner::{End, Inner, Probe, ProbeKind},
    too_big::{clamp_mss, may_be_syn},
};

use super::deliver::Deliver;
use crate::{
    event::Event,
    ip,
    path::{Followed, Mover, Path},
    plane::Shared,
    reassembly::Refused,
    session::{OpenError, Opened, RxSession},
    stats::{DropCounters, DropReason, Run},
    table::{Session, Tables, lock},
};

/// Probes of one run that are answered; more are a flood.
const PROBES: usize = 8;

/// The run under way.
pub(super) struct RxRun<'t> {
    index: u32,
    /// Where all of it came from.
    path: Path,
    session: &'t Arc<Session>,
    rx: MutexGuard<'t, RxSession>,
    opened: Run,
    /// What may move the path, if the run had the newest packet of all.
    mover: Option<Mover>,
    epoch_seen: Option<u32>,
    forged_out: bool,
    probes: [Option<Probe>; PROBES],
    /// The peer has ended the session.
    end: Option<End>,
    /// Header masks of the packets that follow in the message, and where each begins.
    ahead: [(usize, [u8; MASK_LEN]); LANES],
    /// The last inner source that was found to be the peer's.
    source: Option<IpAddr>,
    /// The last inner destination that source was found to have a realm in common with.
    destination: Option<IpAddr>,
}

impl<'t> RxRun<'t> {
    pub(super) fn begin(session: &'t Arc<Session>, index: u32, path: Path) -> Self {
        Self {
            index,
            path,
            session,
            rx: lock(&session.rx),
            opened: Run::default(),
            mover: None,
            epoch_seen: None,
            forged_out: false,
            probes: [None; PROBES],
            end: None,
            ahead: [(usize::MAX, [0; MASK_LEN]); LANES],
            source: None,
            destination: None,
        }
    }

    /// Whether a packet to `index` from `path` belongs to the run, which is of `most` packets.
    pub(super) fn goes_on(&self, index: u32, path: &Path, most: u64) -> bool {
        self.index == index && self.path == *path && self.opened.packets < most
    }

    /// Opens the packet at `range` of `storage` and hands on what is in it. Others of its length follow it up to `end`.
    pub(super) fn open(
        &mut self,
        storage: &mut [u8],
        range: Range<usize>,
        end: usize,
        tables: &Tables,
        now: Instant,
        deliver: &mut Deliver,
    ) {
        let mask = self.mask(storage, &range, end);
        let (kind, len, newest) = match self.rx.open_with(now, &mut storage[range.clone()], mask) {
            Ok(Opened { kind, plaintext, newest, first_of_epoch, .. }) => {
                self.epoch_seen = first_of_epoch.or(self.epoch_seen);
                (kind, plaintext.len(), newest)
            }
            Err(error) => {
                self.forged_out |= matches!(error, OpenError::ForgeryLimit);
                return deliver.drops.count(DropReason::of(&error));
            }
        };
        self.opened.bytes += range.len() as u64;
        self.opened.packets += 1;
        let inner = range.start + HEADER_LEN;
        let mut mover = Some(Mover::Data);
        match Inner::classify(&storage[inner..inner + len]) {
            Ok(Inner::Ip) => self.ip(kind, storage, inner, len, tables, deliver),
            Ok(Inner::Cover) => {}
            Ok(Inner::Probe) => mover = self.probe(&storage[inner..inner + len], deliver),
            Ok(Inner::Fragment) => self.fragment(storage, inner..inner + len, tables, now, deliver),
            Ok(Inner::End) => {
                match End::decode(&storage[inner..inner + len]) {
                    Ok(end) => self.end = Some(end),
                    Err(_) => deliver.drops.count(DropReason::MalformedInner),
                }
                mover = None;
            }
            Ok(Inner::Cell) => deliver.drops.count(DropReason::UnsupportedInner),
            Err(_) => deliver.drops.count(DropReason::MalformedInner),
        }
        if newest {
            self.mover = self.mover.max(mover);
        }
    }

    /// The header mask of the packet at `range`, made together with those that follow; `None` where too few do.
    fn mask(&mut self, storage: &[u8], range: &Range<usize>, end: usize) -> Option<[u8; MASK_LEN]> {
        let known = |(start, mask): &(usize, [u8; MASK_LEN])| (*start == range.start).then_some(*mask);
        if let Some(mask) = self.ahead.iter().find_map(known) {
            return Some(mask);
        }
        let starts: [usize; LANES] = std::array::from_fn(|lane| range.start + lane * range.len());
        let samples = starts.map(|start| storage.get(start..end).and_then(sample_of));
        let [Some(a), Some(b), Some(c), Some(d)] = samples else { return None };
        let masks = self.rx.masks([a, b, c, d]);
        self.ahead = std::array::from_fn(|lane| (starts[lane], masks[lane]));
        Some(masks[0])
    }

    /// Ends the run: unlocks the session, adds up the traffic, follows the peer and tells the control side.
    pub(super) fn end(self, shared: &Shared, drops: &DropCounters, now: Instant) {
        let Self { session, path, rx, opened, mover, epoch_seen, forged_out, probes, end, .. } = self;
        drop(rx);
        if forged_out && !session.forged_out.swap(true, Ordering::Relaxed) {
            shared.emit(Event::ForgeryLimit { session: session.id });
        }
        if opened.packets == 0 {
            return;
        }
        session.peer.rx.add(opened, shared.start, now);
        follow(session, path, mover, shared, now);
        if !session.confirmed.swap(true, Ordering::AcqRel) {
            shared.activate_tx(session.id);
            shared.emit(Event::FirstPacket { session: session.id });
        }
        if let Some(epoch) = epoch_seen {
            shared.emit(Event::EpochSeen { session: session.id, epoch });
        }
        for probe in probes.into_iter().flatten() {
            answer(session, probe, path, shared, drops, now);
        }
        if let Some(End { reason }) = end.filter(|_| !session.ended.swap(true, Ordering::Relaxed)) {
            shared.emit(Event::Ended { session: session.id, reason });
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
        match self.admit(kind, &mut storage[offset..offset + len], tables) {
            Ok(()) => deliver.push(kind, storage, offset, len),
            Err(reason) => deliver.drops.count(reason),
        }
    }

    /// Keeps a piece of a packet; hands the packet on when it is whole.
    fn fragment(
        &mut self,
        storage: &mut [u8],
        range: Range<usize>,
        tables: &Tables,
        now: Instant,
        deliver: &mut Deliver,
    ) {
        let Ok((head, bytes)) = Fragment::decode(&storage[range]) else {
            return deliver.drops.count(DropReason::Fragment);
        };
        let taken = lock(&self.session.pieces).take(head.kind, u64::from(head.id), head.place, bytes, now);
        deliver.drops.count_many(DropReason::FragmentLost, taken.given_up);
        match taken.whole {
            Ok(None) => {}
            Err(Refused::Twice) => deliver.drops.count(DropReason::FragmentTwice),
            Err(Refused::Misfit) => deliver.drops.count(DropReason::Fragment),
            Ok(Some(mut packet)) => match self.admit(head.kind, &mut packet, tables) {
                Ok(()) => deliver.push_whole(head.kind, storage, packet),
                Err(reason) => deliver.drops.count(reason),
            },
        }
    }

    /// Whether an inner packet may come from this peer and go where it goes. What a SYN in it asks of the local sender is
    /// lowered to what the path carries.
    fn admit(&mut self, kind: PacketKind, packet: &mut [u8], tables: &Tables) -> Result<(), DropReason> {
        let source = ip::source(packet).ok_or(DropReason::MalformedInner)?;
        if self.source != Some(source) {
            if tables.routes.lookup(source) != Some(self.session.peer.slot) {
                return Err(DropReason::Spoof);
            }
            (self.source, self.destination) = (Some(source), None);
        }
        if let Some(realms) = &tables.realms {
            let destination = ip::destination(packet).ok_or(DropReason::MalformedInner)?;
            if self.destination != Some(destination) {
                if !realms.meet(source, destination) {
                    return Err(DropReason::Realm);
                }
                self.destination = Some(destination);
            }
        }
        // What is said about packets to another peer is for that peer's network to say: the kernel believes it.
        match ip::quoted_destination(packet) {
            Ok(None) => {}
            Ok(Some(quoted)) if tables.routes.lookup(quoted).is_none_or(|slot| slot == self.session.peer.slot) => {}
            Ok(Some(_)) | Err(ip::CutOff) => return Err(DropReason::Spoof),
        }
        self.opened.data = true;
        if tables.paused {
            return Err(DropReason::Paused);
        }
        if let Some(advise) = self.session.peer.size.advise().filter(|_| may_be_syn(packet)) {
            clamp_mss(packet, kind == PacketKind::DataPartial, advise);
        }
        Ok(())
    }

    /// Keeps a probe for the end of the run; gives what it may do to the path.
    fn probe(&mut self, plaintext: &[u8], deliver: &Deliver) -> Option<Mover> {
        let Ok(probe) = Probe::decode(plaintext) else {
            deliver.drops.count(DropReason::MalformedInner);
            return None;
        };
        match self.probes.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(probe),
            None => deliver.drops.count(DropReason::RateLimited),
        }
        match probe.kind {
            ProbeKind::Nominate => Some(Mover::Nominate),
            ProbeKind::Check | ProbeKind::Answer => None,
        }
    }
}

/// Lets the peer's path follow what its newest session received, and tells the control side of what moved it or came
/// from elsewhere. What a removed session received says nothing about the ones that are left.
fn follow(session: &Session, path: Path, mover: Option<Mover>, shared: &Shared, now: Instant) {
    let peer = &session.peer;
    if lock(&peer.place).hear(path, now) {
        // Pins are by address, and another peer that forges this one may have taken it away, or given it one.
        let extra = &shared.underlay.sockets.extra;
        if (path.socket.is_some() || extra.pin_of(path.remote).is_some()) && !shared.is_outdated(session) {
            extra.pin(path.remote, path.socket);
        }
        return;
    }
    if shared.is_outdated(session) {
        return;
    }
    let followed = lock(&peer.place).follow(path, mover, now);
    // Before anything is sent there; what is not told of is too much to remember too.
    if followed != Followed::Known && (path.socket.is_some() || mover.is_some()) {
        shared.underlay.sockets.extra.pin(path.remote, path.socket);
    }
    match followed {
        Followed::Stayed | Followed::Known => {}
        Followed::Heard => shared.emit(Event::Heard { peer: peer.slot, from: path.remote }),
        Followed::Moved(from) => {
            session.next_remote_index();
            shared.emit(Event::Roamed { peer: peer.slot, from, to: path.remote });
        }
    }
}

/// Answers a probe where it came from, or reports an answer.
fn answer(session: &Session, probe: Probe, path: Path, shared: &Shared, drops: &DropCounters, now: Instant) {
    let peer = &session.peer;
    if probe.kind == ProbeKind::Answer {
        if !lock(&peer.place).takes_answer(now) {
            return drops.count(DropReason::RateLimited);
        }
        return shared.emit(Event::ProbeAck { peer: peer.slot, id: probe.id, from: path.remote, at: now });
    }
    if !lock(&peer.place).answers_probe(now) {
        return drops.count(DropReason::RateLimited);
    }
    let Some(datagram) = shared.seal_probe(session, probe.answer(), 0, now) else {
        return drops.count(DropReason::SealRefused);
    };
    let sent = match path.socket {
        Some(socket) => shared.underlay.send_from(socket, path.remote, &datagram),
        None => shared.underlay.send_one(path.remote, path.local, &datagram),
    };
    match sent {
        Ok(()) => peer.tx.add(Run { bytes: datagram.len() as u64, packets: 1, data: false }, shared.start, now),
        Err(_) => drops.count(DropReason::SendError),
    }
}
