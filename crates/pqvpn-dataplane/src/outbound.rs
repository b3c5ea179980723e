// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outbound direction: TUN -> route -> cut and seal into one send buffer -> socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    os::fd::BorrowedFd,
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use pqvpn_packet::{
    fragment::{self, Cut, FRAGMENT_LEN, Fragment, Place},
    header::{HEADER_LEN, OVERHEAD, PacketKind, TAG_LEN},
    segment::Segmenter,
    too_big::{clamp_mss, may_be_syn, too_big},
    virtio::VirtioNetHdr,
};

use crate::{
    clock,
    event::{Event, PeerSlot},
    ip,
    plane::Shared,
    session::TxSession,
    size::{REFUSED_EVERY, SURE_LEN, TELL_EVERY, TOO_BIG_EVERY},
    stats::{DropCounters, DropReason, Run},
    table::{Peer, PeerEntry, Session, Tables, View, lock},
    tun::{ReadBatch, TunReader, VNET_HDR_LEN},
    udp::SendBatch,
    way::{By, Exit},
};

/// How often a session is asked for while packets come.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Bytes after which sealed datagrams leave although more may follow.
const EARLY: usize = 64 * 1024;
/// The send buffer: what is left before [`EARLY`], and one super-packet with its overhead.
const SEND_BYTES: usize = 192 * 1024;

/// The outbound direction of a queue.
pub(crate) struct Outbound {
    reader: Box<dyn TunReader>,
    batch: ReadBatch,
    sealer: Sealer,
}

impl Outbound {
    pub(crate) fn new(shared: Arc<Shared>, queue: usize, reader: Box<dyn TunReader>) -> Self {
        let drops = shared.outbound_drops(queue);
        let send = SendBatch::new(SEND_BYTES);
        let sealer = Sealer { shared, queue, drops, send, unmasked: Vec::new(), whole: Vec::new(), waited: false };
        Self { reader, batch: ReadBatch::new(), sealer }
    }

    /// Deals with packets that are there, `most` at once; gives their bytes, 0 when there are none.
    pub(crate) fn step(&mut self, most: usize, view: &mut View<'_>) -> io::Result<usize> {
        self.batch.restart(most);
        match self.reader.read_batch(&mut self.batch) {
            Ok(()) => self.sealer.take(&self.batch, view.load()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
        Ok(self.batch.bytes())
    }

    /// Packets of the last step that were of such a length.
    pub(crate) fn packets_of(&self, lengths: Range<usize>) -> usize {
        self.batch.count_of(lengths)
    }

    /// Whether the last step found the device dry after its packets.
    pub(crate) fn was_last(&self) -> bool {
        self.batch.is_last()
    }

    /// Sends what waited for sessions that are there now.
    pub(crate) fn woken(&mut self, tables: &Tables) {
        self.sealer.flush_parked(tables);
    }

    /// What [`take_waited`](Self::take_waited) will say.
    pub(crate) fn has_waited(&self) -> bool {
        self.sealer.waited
    }

    /// Whether a socket was full since this was asked last, and made everything wait.
    pub(crate) fn take_waited(&mut self) -> bool {
        std::mem::take(&mut self.sealer.waited)
    }

    /// Becomes readable when [`step`](Self::step) would find a packet.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.poll_fd()
    }
}

/// Turns packets into datagrams.
struct Sealer {
    shared: Arc<Shared>,
    queue: usize,
    drops: Arc<DropCounters>,
    send: SendBatch,
    /// Sealed datagrams of the run in the send buffer whose headers are in the clear still: they are masked side by side.
    unmasked: Vec<Range<usize>>,
    /// A packet about to be cut into pieces.
    whole: Vec<u8>,
    /// A socket was full.
    waited: bool,
}

/// A run of packets to one peer; its session stays locked meanwhile.
struct TxRun<'t> {
    session: &'t Arc<Session>,
    tx: MutexGuard<'t, TxSession>,
    exit: Exit<'t>,
    local: Option<IpAddr>,
    receiver: u32,
    /// Longest datagram the path carries.
    carry: usize,
    /// Longest packet that local senders should send.
    advise: Option<usize>,
    /// Longest datagram that would be sealed if nothing was cut.
    longest: usize,
    sealed: Run,
}

impl Sealer {
    /// Deals with a batch and sends what came of it.
    fn take(&mut self, batch: &ReadBatch, tables: &Tables) {
        if tables.paused {
            self.drops.count_many(DropReason::Paused, batch.len() as u64);
            return;
        }
        let now = clock::now();
        let mut run = None;
        let mut last = None;
        for packet in batch.packets() {
            match admit(packet, tables, &mut last) {
                Ok(entry) => self.one(&mut run, packet, entry, tables, now),
                Err(reason) => self.drops.count(reason),
            }
        }
        self.end_run(&mut run, now);
        self.flush(tables);
    }

    /// Seals or parks one packet.
    fn one<'t>(
        &mut self,
        run: &mut Option<TxRun<'t>>,
        packet: &[u8],
        entry: &'t PeerEntry,
        tables: &'t Tables,
        now: Instant,
    ) {
        let Some(session) = &entry.active else {
            return self.park(packet, entry, now);
        };
        if run.as_ref().is_none_or(|run| !Arc::ptr_eq(run.session, session)) {
            self.end_run(run, now);
            *run = self.begin_run(session, tables);
        }
        let Some(current) = run else {
            // Or nobody would ever notice that the peer is out of reach: what is sent without an answer is looked into.
            session.peer.tx.unsent(self.shared.start, now);
            return self.drops.count(DropReason::NoPath);
        };
        if entry.peer.parked.len() > 0 {
            self.unpark(current, entry, tables, now);
        }
        self.seal(current, packet, tables, now);
        if self.send.pending() >= EARLY {
            self.end_run(run, now);
            self.flush(tables);
        }
    }

    fn begin_run<'t>(&self, session: &'t Arc<Session>, tables: &'t Tables) -> Option<TxRun<'t>> {
        let path = session.peer.path()?;
        let exit = tables.ways.exit(path.remote)?;
        let receiver = session.remote_index();
        let size = &session.peer.size;
        Some(TxRun {
            session,
            tx: lock(&session.tx),
            exit,
            local: self.shared.underlay.source(path.local),
            receiver,
            carry: size.carry(),
            advise: size.advise(),
            longest: 0,
            sealed: Run::default(),
        })
    }

    /// Unlocks the session and adds up its traffic.
    fn end_run(&mut self, run: &mut Option<TxRun<'_>>, now: Instant) {
        let Some(TxRun { session, tx, sealed, longest, .. }) = run.take() else {
            return;
        };
        self.mask(&tx);
        let wanted = tx.wants_step() && session.first_wanted(tx.epoch());
        drop(tx);
        if sealed.packets > 0 {
            session.peer.tx.add(sealed, self.shared.start, now);
        }
        let peer = &session.peer;
        if longest > SURE_LEN && peer.size.used.due(self.shared.start, now, TELL_EVERY) {
            self.shared.emit(Event::LongInUse { peer: peer.slot });
        }
        if wanted {
            self.shared.emit(Event::StepWanted { session: session.id });
        }
    }

    /// Cuts one packet and seals the pieces into the send buffer.
    fn seal(&mut self, run: &mut TxRun<'_>, packet: &[u8], tables: &Tables, now: Instant) {
        let header = VirtioNetHdr::decode(packet);
        let parsed = header.zip(packet.get(VNET_HDR_LEN..)).map(|(header, packet)| Segmenter::new(&header, packet));
        let Some(Ok(segments)) = parsed else {
            return self.drops.count(DropReason::MalformedLocal);
        };
        if segments.max_len() > self.shared.inner_mtu {
            return self.drops.count(DropReason::TooBig);
        }
        let longest = segments.max_len();
        if run.advise.is_some_and(|advise| longest > advise) {
            self.tell_sender(run, &packet[VNET_HDR_LEN..], longest, now);
        }
        let cut = if longest + OVERHEAD <= run.carry {
            None
        } else if let Some(cut) = fragment::cut(longest, run.carry.saturating_sub(OVERHEAD)) {
            Some(cut)
        } else {
            return self.drops.count(DropReason::TooBig);
        };
        let count = segments.count();
        let datagrams = count * cut.map_or(1, |cut| cut.count);
        if run.tx.begin_batch(now, u32::try_from(datagrams).unwrap_or(u32::MAX)).is_err() {
            self.drops.count_many(DropReason::SealRefused, count as u64);
            return self.shared.report_refused(run.session, now);
        }
        run.longest = run.longest.max(longest + OVERHEAD);
        for i in 0..count {
            match cut {
                Some(cut) if segments.len(i) + OVERHEAD > run.carry => self.seal_pieces(run, &segments, i, cut, tables),
                _ => {
                    let advise = run.advise;
                    self.datagram(run, segments.kind(), segments.len(i), tables, |out| {
                        segments.write(i, out);
                        if let Some(advise) = advise.filter(|_| may_be_syn(out)) {
                            clamp_mss(out, segments.kind() == PacketKind::DataPartial, advise);
                        }
                    });
                }
            }
        }
    }

    /// Seals inner packet `i` in pieces: the path does not carry it whole.
    fn seal_pieces(&mut self, run: &mut TxRun<'_>, segments: &Segmenter<'_>, i: usize, cut: Cut, tables: &Tables) {
        let mut whole = std::mem::take(&mut self.whole);
        whole.resize(segments.len(i), 0);
        segments.write(i, &mut whole);
        // No two packets begin at the same count of what was sealed.
        #[expect(clippy::cast_possible_truncation, reason = "it tells packets of about the same time apart")]
        let id = run.tx.counter() as u32;
        // The cut is one of a packet whose length and pieces fit these types.
        let (total, unit) = (u16::try_from(whole.len()).unwrap_or(0), u16::try_from(cut.unit).unwrap_or(0));
        for (index, piece) in (0..).zip(whole.chunks(cut.unit)) {
            let head = Fragment { kind: segments.kind(), id, place: Place { total, unit, index } };
            // The last one is padded to the length of the others: one run, and one message to the system.
            self.datagram(run, PacketKind::Data, FRAGMENT_LEN + cut.unit, tables, |out| {
                out[..FRAGMENT_LEN].copy_from_slice(&head.encode());
                out[FRAGMENT_LEN..][..piece.len()].copy_from_slice(piece);
                out[FRAGMENT_LEN + piece.len()..].fill(0);
            });
        }
        self.whole = whole;
    }

    /// Seals one datagram whose plaintext of `len` bytes is what `write` writes.
    fn datagram(
        &mut self,
        run: &mut TxRun<'_>,
        kind: PacketKind,
        len: usize,
        tables: &Tables,
        write: impl FnOnce(&mut [u8]),
    ) {
        let (lead, len) = (run.exit.lead(), len + OVERHEAD);
        if self.send.room(lead + len).is_none() {
            self.mask(&run.tx);
            self.flush(tables);
        }
        let start = self.send.pending() + lead;
        let Some(room) = self.send.room(lead + len) else {
            return self.drops.count(DropReason::TooBig);
        };
        write(&mut room[lead + HEADER_LEN..lead + len - TAG_LEN]);
        if run.tx.seal_unmasked(run.receiver, kind, &mut room[lead..]).is_err() {
            return self.drops.count(DropReason::SealRefused);
        }
        if let Some(channel) = run.exit.channel {
            channel.write(room);
        }
        match run.exit.by {
            By::Udp(to) => {
                self.send.commit(to, run.local, lead + len);
                self.unmasked.push(start..start + len);
            }
            By::Carrier(carrier) => {
                run.tx.mask(&mut room[lead..]);
                if !carrier.send(room) {
                    return self.drops.count(DropReason::CarrierFull);
                }
            }
        }
        run.sealed.bytes += len as u64;
        run.sealed.packets += 1;
        run.sealed.data = true;
    }

    /// Masks what is not masked yet; `tx` has sealed all of it.
    fn mask(&mut self, tx: &TxSession) {
        tx.mask_all(self.send.waiting(), &self.unmasked);
        self.unmasked.clear();
    }

    /// Tells the sender of a packet, now and then, that shorter ones go whole.
    fn tell_sender(&self, run: &TxRun<'_>, packet: &[u8], len: usize, now: Instant) {
        let told = &run.session.peer.size.told;
        // Every packet of a burst may be too long; the word costs more than the look at the clock.
        if !told.is_due(self.shared.start, now, TOO_BIG_EVERY) {
            return;
        }
        let Some(reply) = run.advise.and_then(|advise| too_big(packet, len, advise)) else { return };
        if told.due(self.shared.start, now, TOO_BIG_EVERY) {
            self.shared.notices[self.queue].push(reply, &self.drops);
            self.shared.inbound_wakes[self.queue].wake();
        }
    }

    fn park(&self, packet: &[u8], entry: &PeerEntry, now: Instant) {
        let lost = entry.peer.parked.park(packet, now);
        self.drops.count_many(DropReason::ParkedOverflow, lost.overflow);
        self.drops.count_many(DropReason::ParkedExpired, lost.expired);
        if entry.peer.asked.due(self.shared.start, now, ASK_EVERY) {
            self.shared.emit(Event::NeedSession { peer: entry.peer.slot });
        }
    }

    fn unpark(&mut self, run: &mut TxRun<'_>, entry: &PeerEntry, tables: &Tables, now: Instant) {
        let expired = entry.peer.parked.drain(now, |parked| self.seal(run, parked, tables, now));
        self.drops.count_many(DropReason::ParkedExpired, expired);
    }

    /// Sends what waited for sessions that are there now.
    fn flush_parked(&mut self, tables: &Tables) {
        let now = clock::now();
        for entry in tables.peers.values() {
            let Some(session) = &entry.active else { continue };
            if entry.peer.parked.len() == 0 {
                continue;
            }
            let mut run = self.begin_run(session, tables);
            if let Some(run) = &mut run {
                if tables.paused {
                    let expired = entry.peer.parked.drain(now, |_| self.drops.count(DropReason::Paused));
                    self.drops.count_many(DropReason::ParkedExpired, expired);
                } else {
                    self.unpark(run, entry, tables, now);
                }
            }
            self.end_run(&mut run, now);
            self.flush(tables);
        }
    }

    fn flush(&mut self, tables: &Tables) {
        debug_assert!(self.unmasked.is_empty(), "nothing leaves with its header in the clear");
        if self.send.pending() == 0 {
            return;
        }
        let sent = self.send.flush(&self.shared.underlay.sockets, self.queue);
        self.waited |= sent.waited;
        if sent.failed > 0 {
            self.drops.count_many(DropReason::SendError, sent.failed);
        }
        for remote in sent.too_long {
            self.report_too_long(remote, tables);
        }
        for remote in sent.source_refused {
            let peers = tables.peers.values().map(|entry| &entry.peer);
            peers
                .filter(|peer| peer.path().is_some_and(|path| path.remote == remote))
                .for_each(|peer| peer.forget_local());
        }
    }

    /// Tells the control side whose datagrams the system refuses as too long; they leave for `remote`, a relay or the peer.
    fn report_too_long(&self, remote: SocketAddr, tables: &Tables) {
        let now = clock::now();
        let leads_there = |peer: &Peer| {
            let exit = peer.path().and_then(|path| tables.ways.exit(path.remote));
            exit.is_some_and(|exit| matches!(exit.by, By::Udp(to) if to == remote))
        };
        for peer in tables.peers.values().map(|entry| &entry.peer).filter(|peer| leads_there(peer)) {
            if peer.size.refused.due(self.shared.start, now, REFUSED_EVERY) {
                self.shared.emit(Event::TooLong { peer: peer.slot });
            }
        }
    }
}

/// What was found of the packet before: its destination and whose that is, and its source where that was looked at.
#[derive(Clone, Copy)]
struct Last {
    destination: IpAddr,
    slot: PeerSlot,
    source: Option<IpAddr>,
}

/// Whose the packet is, if it may go there; packets of one flow follow each other, so the last answer is kept.
fn admit<'t>(packet: &[u8], tables: &'t Tables, last: &mut Option<Last>) -> Result<&'t PeerEntry, DropReason> {
    let packet = packet.get(VNET_HDR_LEN..).unwrap_or_default();
    let destination = ip::destination(packet).ok_or(DropReason::MalformedLocal)?;
    let known = last.filter(|last| last.destination == destination);
    let slot = known.map(|last| last.slot).or_else(|| tables.routes.lookup(destination));
    let entry = slot.and_then(|slot| tables.peers.get(&slot)).ok_or(DropReason::NoRoute)?;
    let mut source = None;
    if let Some(realms) = &tables.realms {
        source = ip::source(packet);
        if known.is_none_or(|last| last.source != source)
            && !source.is_some_and(|source| realms.meet(source, destination))
        {
            return Err(DropReason::Realm);
        }
    }
    *last = Some(Last { destination, slot: entry.peer.slot, source });
    Ok(entry)
}
