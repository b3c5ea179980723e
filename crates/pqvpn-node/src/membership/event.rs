// SPDX-License-Identifier: MIT OR Apache-2.0
//! What reaches the driver, and from whom.

use std::{net::SocketAddr, sync::Arc};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use tokio::sync::oneshot;

use super::{
    command::NetworkCommand,
    driver::WayReply,
    links::LinkId,
    relaying::Willing,
    report::{RelayReport, RotatedNetwork},
    rotation::RotationError,
    rpc::Asked,
};
use crate::{
    dht::{FirstStream, Place, Usage},
    link::Connection,
    netcheck::MemberLink,
};

/// From the tasks that serve links.
#[derive(Debug)]
pub(super) enum Event {
    /// Another node asks.
    Asked(Box<Asked>),
    /// A link has ended; whether it broke, or the node at its other end stops.
    Ended(LinkId, bool),
}

/// A link that its dialer opened for a network.
pub(crate) struct Incoming {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) place: Place,
    pub(crate) first: FirstStream,
}

/// A new identity for this node, for all its networks.
pub(crate) struct Rotating {
    pub(crate) next: Arc<Identity>,
    /// SHA-256 of the key file that becomes the keystore.
    pub(crate) file: [u8; 32],
    /// Answered when it is on disk and members have heard of it. From then on the identity before is no member.
    pub(crate) reply: oneshot::Sender<Result<Vec<RotatedNetwork>, RotationError>>,
}

/// What the rest of the node asks of its networks.
pub(crate) enum Order {
    /// A link for a network has come in.
    Incoming(Box<Incoming>),
    /// A person's order.
    Command(NetworkCommand),
    /// A way to a peer through another member.
    Relay(PeerId, WayReply),
    /// Which members there are links with.
    Links(oneshot::Sender<Vec<MemberLink>>),
    /// Forward so much for others from now on.
    Willing(Willing),
    /// What is forwarded for whom.
    Relaying(oneshot::Sender<RelayReport>),
    /// These ways are in use.
    Hold(Vec<SocketAddr>),
    /// Go on under another identity; this one has no further use for the driver than to be told.
    Rotate(Box<Rotating>),
    /// The host's network has changed.
    NetworkChanged,
    /// Take no part.
    Pause,
    /// Take part again, after so many times of not doing so.
    Resume(u64),
    /// A link with our own identity at its other end was seen.
    Twin,
    /// A session with somebody who is no peer any more was ended; its other end was there, the last place first.
    HadSession(PeerId, Vec<SocketAddr>),
    /// Tell everybody who must know, close every link, write everything down, end.
    Stop(oneshot::Sender<()>),
    /// Fail.
    #[cfg(test)]
    Panic,
}
