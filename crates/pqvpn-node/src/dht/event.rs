// SPDX-License-Identifier: MIT OR Apache-2.0
//! What reaches the driver, and from whom.

use std::{net::SocketAddr, sync::Arc};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_wire::{
    dht::{Admission, Contact, Fact, Point},
    frame::FRAME_HEADER_LEN,
};
use tokio::sync::oneshot;

use super::{
    links::LinkId,
    places::Place,
    report::{DhtReport, DoorReport, GetReport, GoneDoor, LookupReport, NewDoor, PutReport, TableReport},
    rpc::Asked,
    usage::Usage,
};
use crate::{
    handle::NodeError,
    link::{Connection, ControlRecv, ControlSend},
};

/// From the tasks and threads of the DHT.
#[derive(Debug)]
pub(super) enum Event {
    /// Another node asks.
    Asked(Box<Asked>),
    /// A link has ended.
    Ended(LinkId),
    /// A contact's proof of work was checked.
    Checked { contact: Arc<Contact>, valid: bool },
    /// Our own proof was found.
    Solved(Admission),
}

/// An answer that somebody waits for.
pub(super) type Reply<T> = oneshot::Sender<Result<T, NodeError>>;

/// A stream whose first frame header has been read.
pub(crate) struct FirstStream {
    pub(crate) send: ControlSend,
    pub(crate) recv: ControlRecv,
    pub(crate) header: [u8; FRAME_HEADER_LEN],
}

/// A link that its dialer opened for the DHT.
pub(crate) struct Incoming {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) place: Place,
    pub(crate) first: FirstStream,
}

/// Which record is wanted, names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Peer(PeerId),
    Value(PeerId, String),
    Key(Point),
}

/// A value under an identity of its own, which nobody can tell to be this node's.
pub(crate) struct ValueAs {
    pub(crate) owner: Identity,
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

/// What the rest of the node asks of the DHT.
pub(crate) enum Order {
    /// A link for the DHT has come in.
    Incoming(Box<Incoming>),
    /// Where does the peer's record say that it can be dialed?
    Find(PeerId, oneshot::Sender<Vec<SocketAddr>>),
    /// Where have others met the peer, or does it announce itself? Endpoints, best first.
    Known(PeerId, oneshot::Sender<Vec<String>>),
    /// The peer was reached: nobody needs its record any more.
    Reached(PeerId),
    /// Somebody wants to reach the peer now: what was not found a while ago is looked for again.
    Retry(PeerId),
    /// Take no part, or take part again.
    Pause(bool),
    /// The host's network has changed.
    NetworkChanged,
    Status(oneshot::Sender<DhtReport>),
    Get(Wanted, Reply<GetReport>),
    Put(String, Vec<u8>, Reply<PutReport>),
    /// Keep a value published for a day under an identity that is not the node's; the answer is how many took it.
    PutAs(Box<ValueAs>, Reply<usize>),
    /// Keep that owner's value of this name published no longer.
    DropAs(PeerId, String),
    Lookup(Wanted, Reply<LookupReport>),
    /// Tell everybody a fact of our own, now and after each time the DHT is joined.
    Announce(Arc<Fact>),
    Table(Reply<TableReport>),
    Doors(Reply<Vec<DoorReport>>),
    AddDoors(Vec<NewDoor>, Reply<usize>),
    RemoveDoors(Vec<GoneDoor>, Reply<usize>),
    /// Close every link, write everything down, end.
    Stop(oneshot::Sender<()>),
}
