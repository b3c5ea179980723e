// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the data plane tells the control side.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

/// The index the node gives a peer; the data plane knows peers by nothing else.
pub type PeerSlot = u32;

/// The number the node gives a session; unique for the life of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Where events go. Called on the packet threads: it must not block and must not call back into the data plane.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Something the control side should act on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Packets for `peer` are parked and it has no active session. At most once a second and peer.
    NeedSession {
        /// The peer the packets are for.
        peer: PeerSlot,
    },
    /// The first packet of a session authenticated: the peer has the keys. Sending on the session is active from now.
    FirstPacket {
        /// The session it came on.
        session: SessionId,
    },
    /// The first packet of a staged epoch authenticated (security.md 1.8, STAGED).
    EpochSeen {
        /// The session it came on.
        session: SessionId,
        /// The epoch that took effect for receiving.
        epoch: u32,
    },
    /// The sending epoch carried `EPOCH_PKTS` packets (security.md 1.7). Once per epoch.
    StepWanted {
        /// The session that should step its ratchet.
        session: SessionId,
    },
    /// A session may not seal any more (`EPOCH_HARD` or `COUNTER_MAX`). At most once a second and session.
    SealRefused {
        /// The session that needs a new handshake.
        session: SessionId,
    },
    /// A session passed `FORGERY_LIMIT` failed opens and accepts nothing any more. Once per session.
    ForgeryLimit {
        /// The session to close.
        session: SessionId,
    },
    /// An authenticated packet, newer than all before, came from another address or way; the path follows it.
    Roamed {
        /// The peer that moved.
        peer: PeerSlot,
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// An authenticated packet came from an address or way that is not the path, and did not move it. At most once a
    /// second, peer and address, and for few addresses at a time.
    Heard {
        /// The peer it is from.
        peer: PeerSlot,
        /// Where it came from.
        from: SocketAddr,
    },
    /// The peer answered a probe.
    ProbeAck {
        /// Who answered.
        peer: PeerSlot,
        /// The number given to [`Control::send_probe`](crate::Control::send_probe) or
        /// [`Control::send_probe_to`](crate::Control::send_probe_to).
        id: u64,
        /// The underlay address or way the answer came from.
        from: SocketAddr,
        /// When the batch with the answer was received.
        at: Instant,
    },
    /// The peer has ended the session, whose link sleeps. Told once.
    Ended {
        /// The session that is over.
        session: SessionId,
        /// Why: a close code of the link, which need not be one that is known.
        reason: u8,
    },
    /// Datagrams longer than [`SURE_LEN`](crate::SURE_LEN) are sent to the peer. At most twice a second and peer.
    LongInUse {
        /// The peer they are for.
        peer: PeerSlot,
    },
    /// The system refused a datagram to the peer as too long. At most ten times a second and peer.
    TooLong {
        /// The peer it was for.
        peer: PeerSlot,
    },
    /// A packet thread ended on an error it cannot work around, or panicked.
    Failed {
        /// Which part ("tun", "udp"), or "packet" when it is not known.
        what: &'static str,
        /// What ended it.
        error: io::Error,
    },
}
