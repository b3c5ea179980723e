// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making sessions over links: dial or accept, negotiate, install in the data plane, then carry control messages.
//!
//! One task per link. It tells the state task what happened through a bounded queue and ends with its link.

mod accept;
mod cause;
mod dial;
mod door;
mod error;
mod make;
mod slots;
mod unkept;
mod wanted;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    aead::AeadId,
    identity::PublicIdentity,
    peer_id::PeerId,
    ratchet::machine::{EpochTime, Ratchet},
    schedule::{EXPORTER_LABEL, EXPORTER_LEN, Exporter, Psk, Role, TRANSCRIPT_LABEL, Transcript, exporter_context},
    tls::{LinkCrypto, OwnLinks, Refusal},
};
use pqvpn_dataplane::{
    PeerSlot, SessionId, SessionInstall,
    session::{RxSession, TxSession},
};
use pqvpn_wire::{
    control::{Candidates, CloseReason, MAX_INDICES, Message, SLEEP_VERSION},
    frame::{self, FrameReader},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use zeroize::Zeroize;

use crate::{
    clock::{self, Reading},
    dht, entropy,
    link::{Connection, ControlRecv, ControlSend, Endpoint},
    membership,
    negotiate::{AckSent, HelloSent, Local, Negotiated, NegotiationError},
    path::FIRST_SIZE,
    plane::PacketPlane,
};
pub(crate) use accept::accept_all;
use door::{Door, Shut};
pub(crate) use error::SessionError;
pub(crate) use make::{dial, dial_at, wake};
pub(crate) use slots::Slots;
use unkept::{Installed, Unkept};
pub(crate) use wanted::Wanted;
use wanted::{Confirmed, Turns};

/// Replay window of a session on one path, in bits (security.md 1.6).
const WINDOW_BITS: usize = 8192;
/// How long negotiating a session on a finished link may take.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Control messages that may wait for a slow link.
const OUTBOX: usize = 16;
/// How many resumption secrets are kept per peer: a step may have completed on one end only.
const KEPT_PSKS: usize = 2;

/// What the link tasks share.
pub(crate) struct LinkContext {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) control: Arc<dyn PacketPlane>,
    pub(crate) own: PeerId,
    /// AEADs this node can use, best first.
    pub(crate) aeads: Vec<AeadId>,
    pub(crate) inner_mtu: u16,
    /// Time between ratchet steps.
    pub(crate) rekey: EpochTime,
    pub(crate) slots: Arc<Slots>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) door: Door,
    /// `None`: switched off.
    pub(crate) dht: Option<dht::Port>,
    pub(crate) networks: membership::Port,
    /// Where refusals are counted.
    crypto: Arc<LinkCrypto>,
    /// Turns for links that are made beside others.
    beside: Turns,
    next_session: AtomicU64,
    unkept: Unkept,
    memory: Mutex<HashMap<PeerId, Memory>>,
}

/// What is remembered of a peer between links, in memory only.
#[derive(Default)]
struct Memory {
    /// Resumption secrets, newest first.
    psks: Vec<Psk>,
    /// The peer's key: spares 2.6 kB of the next handshake.
    key: Option<PublicIdentity>,
    confirmed: Confirmed,
}

/// What a link task tells the state task.
pub(crate) enum LinkEvent {
    /// A dial came to nothing.
    DialFailed { slot: PeerSlot, error: SessionError },
    /// A session carries packets.
    Established(Box<Established>),
    /// An incoming link came to nothing.
    AcceptFailed { error: SessionError },
    /// Another node has our identity, there.
    Twin { remote: SocketAddr },
    /// A ratchet message arrived.
    Ratchet { session: SessionId, bytes: Vec<u8> },
    /// The peer says where it may be reached.
    Candidates { session: SessionId, candidates: Candidates },
    /// The peer would let the link sleep, in a way that we know.
    Sleep { session: SessionId },
    /// The link of a sleeping session could not be made anew; `proven`: this node said so, or the peer, and it was the peer.
    WakeFailed { session: SessionId, error: SessionError, proven: bool },
    /// A way to a peer through another member is there.
    Way { slot: PeerSlot, way: SocketAddr },
    /// The link has ended.
    Gone { session: SessionId, error: SessionError },
}

/// A session and the link that feeds its ratchet.
pub(crate) struct Established {
    pub(crate) id: SessionId,
    pub(crate) slot: PeerSlot,
    pub(crate) role: Role,
    pub(crate) aead: AeadId,
    pub(crate) inner_mtu: u16,
    pub(crate) continuity_lost: bool,
    pub(crate) ratchet: Ratchet,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) outbox: mpsc::Sender<Message>,
    pub(crate) at: Instant,
    /// The clocks before its first packet could be sealed.
    pub(crate) clocks: Reading,
}

impl LinkContext {
    /// Whether we are at both ends of an accepted link.
    fn is_own_link(&self, connection: &dyn Connection) -> bool {
        let mut exported = [0; 32];
        let known = connection.export(OwnLinks::LABEL, &[], &mut exported);
        known.is_ok() && self.crypto.own_links().has(&exported)
    }

    #[expect(clippy::too_many_arguments, reason = "called once, each value named at the call")]
    pub(crate) fn new(
        endpoint: Arc<dyn Endpoint>,
        control: Arc<dyn PacketPlane>,
        own: PeerId,
        aeads: Vec<AeadId>,
        inner_mtu: u16,
        rekey: EpochTime,
        slots: Arc<Slots>,
        events: mpsc::Sender<LinkEvent>,
        dht: Option<dht::Port>,
        networks: membership::Port,
        crypto: Arc<LinkCrypto>,
    ) -> Self {
        let (door, next_session, memory) = (Door::default(), AtomicU64::new(1), Mutex::default());
        let unkept = Unkept::default();
        Self {
            endpoint,
            control,
            own,
            aeads,
            inner_mtu,
            rekey,
            slots,
            events,
            door,
            dht,
            networks,
            crypto,
            beside: Turns::default(),
            next_session,
            unkept,
            memory,
        }
    }

    /// Keeps the newest resumption secret of a peer.
    pub(crate) fn remember_psk(&self, peer: PeerId, psk: Psk) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let psks = &mut memory.entry(peer).or_default().psks;
        psks.insert(0, psk);
        psks.truncate(KEPT_PSKS);
    }

    /// Forgets the secrets shared with a peer (after a ratchet failure they prove nothing).
    pub(crate) fn forget_psks(&self, peer: PeerId) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.entry(peer).or_default().psks.clear();
    }

    /// Forgets everything about a peer that is none any more.
    pub(crate) fn forget(&self, peer: PeerId) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }

    fn newest_psk(&self, peer: PeerId) -> Option<Psk> {
        self.psks(peer).into_iter().next()
    }

    fn psks(&self, peer: PeerId) -> Vec<Psk> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = |psk: &Psk| Psk::from_bytes(*psk.expose());
        memory.get(&peer).map_or_else(Vec::new, |peer| peer.psks.iter().map(copy).collect())
    }

    fn known_key(&self, peer: PeerId) -> Option<PublicIdentity> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).and_then(|peer| peer.key.clone())
    }

    fn remember_key(&self, connection: &dyn Connection) {
        if self.slots.of(&connection.peer()).is_none() {
            return;
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.entry(connection.peer()).or_default().key = Some(connection.public_identity().clone());
    }

    /// A session with a peer is over: one that is made now comes in its place.
    pub(crate) fn on_session_over(&self, peer: PeerId, id: SessionId) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = memory.get_mut(&peer) {
            memory.confirmed.is_over(id);
        }
    }

    /// Whether a session with a peer that we have dialed may be confirmed now.
    fn may_confirm(&self, peer: PeerId) -> Result<(), SessionError> {
        if self.slots.of(&peer).is_none() {
            return Err(SessionError::UnknownPeer);
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let may = memory.entry(peer).or_default().confirmed.may_again(clock::now());
        if may { Ok(()) } else { Err(SessionError::NotWanted) }
    }

    fn confirms(&self, peer: PeerId, id: SessionId) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = memory.get_mut(&peer) {
            memory.confirmed.is(id);
        }
    }

    fn local(&self) -> Local {
        let mut indices: Vec<u32> = Vec::with_capacity(MAX_INDICES);
        while indices.len() < MAX_INDICES {
            let index = entropy::u32();
            if !indices.contains(&index) && !self.control.index_in_use(index) {
                indices.push(index);
            }
        }
        Local { aeads: self.aeads.clone(), indices, inner_mtu: self.inner_mtu }
    }

    /// The link's keying material for one AEAD (security.md 1.3).
    fn export(&self, connection: &dyn Connection, aead: AeadId) -> Option<(Exporter, Transcript)> {
        let context = match connection.side() {
            Role::Initiator => exporter_context(&self.own, &connection.peer(), aead),
            Role::Responder => exporter_context(&connection.peer(), &self.own, aead),
        };
        let mut bytes = [0; EXPORTER_LEN];
        connection.export(EXPORTER_LABEL, &context, &mut bytes).ok()?;
        let exporter = Exporter::from_bytes(bytes);
        connection.export(TRANSCRIPT_LABEL, &context, &mut bytes).ok()?;
        let transcript = Transcript::from_bytes(bytes);
        bytes.zeroize();
        Some((exporter, transcript))
    }

    fn install(
        &self,
        connection: Arc<dyn Connection>,
        negotiated: Negotiated,
        slot: PeerSlot,
    ) -> Result<(Established, mpsc::Receiver<Message>), SessionError> {
        let (now, clocks) = (clock::now(), Reading::take());
        let role = connection.side();
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let Negotiated { parts, aead, local_indices, remote_indices, inner_mtu, continuity_lost, .. } = negotiated;
        let install = SessionInstall {
            id,
            peer: slot,
            tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
            rx: RxSession::new(aead, parts.rx_header, parts.rx, WINDOW_BITS, now),
            local_indices,
            remote_indices,
            path: connection.remote(),
            tx_active: role == Role::Initiator,
        };
        let peer = connection.peer();
        self.unkept.install(id, || {
            // The door may have been shut while the peer negotiated, or the peer taken out: then nothing of it may reach the
            // data plane any more.
            self.door.check_session(peer)?;
            let installed = self.slots.while_held(&peer, slot, || {
                self.control.begin_path_size(slot, FIRST_SIZE);
                self.control.install_session(install)
            });
            Ok(installed.ok_or(SessionError::UnknownPeer)??)
        })?;
        let mut ratchet = Ratchet::new(role, parts.ratchet, now, entropy::u64());
        ratchet.set_epoch_time(self.rekey);
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let established = Established {
            id,
            slot,
            role,
            aead,
            inner_mtu,
            continuity_lost,
            ratchet,
            connection,
            outbox,
            at: now,
            clocks,
        };
        Ok((established, queue))
    }
}

/// A control stream that speaks in messages.
struct Channel {
    send: ControlSend,
    recv: ControlRecv,
    reader: FrameReader,
}

impl Channel {
    fn new((send, recv): (ControlSend, ControlRecv)) -> Self {
        Self { send, recv, reader: FrameReader::new() }
    }

    /// A stream whose first bytes were looked at already.
    fn after(start: &[u8], streams: (ControlSend, ControlRecv)) -> Self {
        let mut channel = Self::new(streams);
        channel.reader.push(start);
        channel
    }

    async fn write(&mut self, message: &Message) -> Result<(), SessionError> {
        self.send.write_all(&frame::encode(message)).await?;
        Ok(self.send.flush().await?)
    }

    /// Cancel-safe: bytes already read stay in the reader.
    async fn read(&mut self) -> Result<Message, SessionError> {
        loop {
            if let Some(message) = self.reader.next_message()? {
                return Ok(message);
            }
            let mut bytes = [0; 4096];
            let count = self.recv.read(&mut bytes).await?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.reader.push(&bytes[..count]);
        }
    }
}

type Made = (Established, mpsc::Receiver<Message>, Channel);

/// A broken stream is only the symptom: the link knows the cause. A link that came to nothing is closed.
async fn judge<T>(
    context: &LinkContext,
    connection: &Arc<dyn Connection>,
    made: Result<T, SessionError>,
) -> Result<T, SessionError> {
    let Err(error) = made else { return made };
    if matches!(error, SessionError::Stream(_)) {
        return Err(context.cause_of_end(connection).await.unwrap_or(error));
    }
    let reason = if let SessionError::Shut(why) = &error {
        if *why == Shut::Revoked {
            context.crypto.refusals().add(Refusal::NotAdmitted);
        }
        why.reason()
    } else if matches!(error, SessionError::Negotiation(NegotiationError::NoCommonAead)) {
        CloseReason::NoCommonAead
    } else if matches!(error, SessionError::UnknownPeer | SessionError::Twin) {
        context.crypto.refusals().add(Refusal::UnknownPeer);
        CloseReason::NotAdmitted
    } else if matches!(error, SessionError::NoPlace(_)) {
        CloseReason::Busy
    } else if matches!(error, SessionError::NotWanted) {
        CloseReason::Duplicate
    } else {
        CloseReason::Protocol
    };
    connection.close(reason.code(), reason.as_str());
    Err(error)
}

async fn negotiate_as_dialer(
    context: &LinkContext,
    connection: Arc<dyn Connection>,
    slot: PeerSlot,
    wanted: Option<&Wanted>,
) -> Result<Made, SessionError> {
    let still = || if wanted.is_some_and(Wanted::is_too_late) { Err(SessionError::NotWanted) } else { Ok(()) };
    let mut channel = Channel::new(connection.open_control().await?);
    still()?;
    let (sent, hello) = HelloSent::start(context.local(), context.newest_psk(connection.peer()));
    channel.write(&Message::Hello(hello)).await?;
    let Message::HelloAck(ack) = channel.read().await? else { return Err(SessionError::OutOfOrder) };
    let (negotiated, confirm) = sent.on_ack(&ack, &|aead| context.export(&*connection, aead))?;
    // The listener has a session only when it is confirmed.
    still()?;
    let peer = connection.peer();
    context.may_confirm(peer)?;
    let (established, queue) = context.install(connection, negotiated, slot)?;
    let guard = Installed::new(context, established.id);
    context.confirms(peer, established.id);
    let written = channel.write(&Message::Confirm(confirm)).await;
    written.inspect_err(|_| context.on_session_over(peer, established.id))?;
    guard.keep();
    Ok((established, queue, channel))
}

async fn negotiate_as_listener(
    context: &LinkContext,
    connection: Arc<dyn Connection>,
    slot: PeerSlot,
    mut channel: Channel,
) -> Result<Made, SessionError> {
    let Message::Hello(hello) = channel.read().await? else { return Err(SessionError::OutOfOrder) };
    let known = context.psks(connection.peer());
    let (waiting, negotiated, ack) =
        AckSent::on_hello(&hello, context.local(), &known, &|aead| context.export(&*connection, aead))?;
    let (mut established, queue) = context.install(connection, negotiated, slot)?;
    let guard = Installed::new(context, established.id);
    channel.write(&Message::HelloAck(ack)).await?;
    let Message::Confirm(confirm) = channel.read().await? else { return Err(SessionError::OutOfOrder) };
    waiting.on_confirm(&confirm)?;
    guard.is_still()?;
    context.control.activate_tx(established.id);
    established.at = clock::now();
    guard.keep();
    Ok((established, queue, channel))
}

/// Carries control messages until the link ends.
async fn serve(
    context: Arc<LinkContext>,
    established: Established,
    mut queue: mpsc::Receiver<Message>,
    mut channel: Channel,
) {
    let (session, connection) = (established.id, Arc::clone(&established.connection));
    context.remember_key(&*connection);
    context.tell(LinkEvent::Established(Box::new(established))).await;
    let error = loop {
        crate::select! {
            message = channel.read() => match message {
                Ok(Message::Ratchet(bytes)) => context.tell(LinkEvent::Ratchet { session, bytes }).await,
                Ok(Message::Candidates(candidates)) => context.tell(LinkEvent::Candidates { session, candidates }).await,
                Ok(Message::Sleep { version: SLEEP_VERSION }) => context.tell(LinkEvent::Sleep { session }).await,
                // Not agreed to.
                Ok(Message::Sleep { .. }) => {}
                Ok(_) => break SessionError::OutOfOrder,
                Err(error) => break error,
            },
            message = queue.recv() => match message {
                Some(message) => if let Err(error) = channel.write(&message).await { break error },
                // The state task let go of the session; it has closed the link itself.
                None => return,
            },
        }
    };
    let error = if matches!(error, SessionError::Stream(_)) {
        context.cause_of_end(&connection).await.unwrap_or(error)
    } else {
        error
    };
    connection.close(CloseReason::Protocol.code(), CloseReason::Protocol.as_str());
    context.tell(LinkEvent::Gone { session, error }).await;
}
