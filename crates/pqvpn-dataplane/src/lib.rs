// SPDX-License-Identifier: MIT OR Apache-2.0
//! TUN devices, UDP batches, the session table and the outbound and inbound pipelines.
//!
//! The data plane owns the UDP sockets; the QUIC endpoint is a guest on them. `unsafe` lives only in `sys.rs` files.
//!
//! Plain threads, a pair per TUN queue: one does both directions while traffic is light, a second takes over the outbound
//! one when there is more. *Outbound* reads super-packets from the TUN, finds the peer, cuts and seals
//! straight into one send buffer and sends runs of equal datagrams with `UDP_SEGMENT`. *Inbound* receives batches with
//! `UDP_GRO`, tells QUIC from tunnel packets by one branch per datagram, opens in place, checks that the inner source
//! belongs to the peer and that it may speak with the inner destination, merges across the whole batch and writes
//! super-packets to the TUN; datagrams that this node relays for others leave from the receive buffer with another
//! channel in front. What both need to know (routes, peers, sessions, ways) is an immutable snapshot, loaded once per
//! batch; the control side replaces it.
//!
//! Nothing is ever answered to a packet that did not authenticate; it is dropped and counted under a [`DropReason`].

mod backlog;
mod clock;
mod codel;
mod confine;
mod control;
mod event;
mod guest;
mod inbound;
mod inject;
mod ip;
mod loan;
mod look;
pub mod mem;
mod moderation;
mod narrow;
mod outbound;
mod park;
#[cfg(test)]
#[path = "park/tests.rs"]
mod park_tests;
mod path;
mod plane;
pub mod portable;
mod realm;
mod reassembly;
mod route;
pub mod session;
mod size;
mod stats;
mod sync;
mod sys;
mod table;
pub mod tun;
mod udp;
mod underlay;
pub mod way;
mod worker;

pub use confine::confine_packet_threads;
pub use control::{Control, EpochError, InstallError, ProbeKind, SendError, SessionInfo, SessionInstall};
pub use event::{Event, EventSink, PeerSlot, SessionId};
pub use guest::{Guest, GuestMeta, GuestTransmit};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use inbound::fuzz::datagrams as fuzz_datagrams;
/// For simulations, which have no packet threads.
#[doc(hidden)]
pub use path::{Followed, Mover, Path, Place};
pub use plane::{DataPlane, DataPlaneConfig, DataPlaneError};
pub use realm::{MAX_REALMS, RealmSet};
pub use size::{PathSize, SURE_LEN};
pub use stats::{DropReason, Drops, PeerStats};
pub use sys::{allocated, give_back_free_pages, give_back_large_blocks, keep_out_of_swap};
pub use tun::{KernelTun, Offloads, ReadBatch, TunError, TunReader, TunWriter};
pub use udp::{
    extra::SocketId,
    port::{PlainPort, PortBatch},
};

/// Mark (`SO_MARK`) of the node's own sockets on the underlay, by which routing rules know that a packet is not for the
/// tunnel. It has no bit in common with the masks of kube-proxy, Cilium, Calico and Tailscale.
pub const MARK: u32 = 174;
