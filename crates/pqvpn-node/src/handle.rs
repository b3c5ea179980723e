// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's only door for the control API and the CLI: commands in, snapshots out.

mod network;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pqvpn_crypto::{keystore::Passphrase, peer_id::PeerId};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{
    dht::report::{
        DhtError, DhtReport, DoorReport, GetReport, GoneDoor, LookupReport, LookupTarget, NewDoor, PutReport,
        RecordRef, TableReport,
    },
    membership::{NetworkCommand, NetworkError, RelayReport, RotatedNetwork, RotationError},
    names::DnsReport,
    netcheck::NetReport,
    snapshot::{PathKind, Snapshot},
};

/// A cheap, cloneable sender of commands to the task that owns the node.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
}

/// What the node can be told or asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// Say that the task that owns the node takes its turns.
    Alive(oneshot::Sender<()>),
    /// Take a snapshot.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Bring the interface up.
    Up(oneshot::Sender<Result<(), NodeError>>),
    /// Take the interface down and end all sessions; the daemon stays.
    Down(oneshot::Sender<Result<(), NodeError>>),
    /// One in-tunnel round trip.
    Ping(PeerRef, Duration, oneshot::Sender<Result<PingReply, NodeError>>),
    /// Step the post-quantum ratchet of a peer's session now.
    Rekey(PeerRef, oneshot::Sender<Result<(), NodeError>>),
    /// Says that the sessions with a peer are over, without ending them.
    #[cfg(test)]
    SayEnd(PeerRef, u8, oneshot::Sender<()>),
    /// Find the clocks as after a night's sleep, when they are looked at next.
    #[cfg(test)]
    Sleep(oneshot::Sender<()>),
    /// End a peer's session and link; the next packet makes a new one.
    Disconnect(PeerRef, oneshot::Sender<Result<(), NodeError>>),
    /// Apply a setting that can change while running.
    Set(String, String, oneshot::Sender<Result<SetOutcome, NodeError>>),
    /// Something of the DHT.
    Dht(DhtCommand),
    /// Something of the networks.
    Network(NetworkCommand),
    /// How names are answered.
    Dns(oneshot::Sender<DnsReport>),
    /// Go on with another key.
    RotateKeys(Box<RotateKeys>, oneshot::Sender<Result<RotationReport, NodeError>>),
    /// What this node forwards for others.
    Relaying(oneshot::Sender<Option<RelayReport>>),
    /// What the network around this node allows.
    NetCheck(oneshot::Sender<NetReport>),
    /// Stop the node and undo what it did to the host.
    Shutdown(Farewell, oneshot::Sender<()>),
}

/// What a node that stops leaves on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing.
    Final,
    /// It starts again at once: packets for members go nowhere meanwhile.
    Restart,
}

/// What the node's DHT can be told or asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum DhtCommand {
    /// How it stands.
    Status(oneshot::Sender<DhtReport>),
    /// Find a record.
    Get(RecordRef, oneshot::Sender<Result<GetReport, NodeError>>),
    /// Publish a value of our own under a name.
    Put(String, Vec<u8>, oneshot::Sender<Result<PutReport, NodeError>>),
    /// Find the nodes nearest to a point.
    Lookup(LookupTarget, oneshot::Sender<Result<LookupReport, NodeError>>),
    /// Show the routing table.
    Table(oneshot::Sender<Result<TableReport, NodeError>>),
    /// List the nodes to start from.
    Doors(oneshot::Sender<Result<Vec<DoorReport>, NodeError>>),
    /// Add nodes to start from; answers how many were new.
    AddDoors(Vec<NewDoor>, oneshot::Sender<Result<usize, NodeError>>),
    /// Name nodes to start from no more; answers how many nobody else names.
    RemoveDoors(Vec<GoneDoor>, oneshot::Sender<Result<usize, NodeError>>),
}

/// An order to rotate the node's key.
#[derive(Debug, Default)]
pub struct RotateKeys {
    /// The passphrase of the keystore, where it has one; the next key is kept under the same.
    pub passphrase: Option<Passphrase>,
}

/// What became of a rotation.
#[derive(Debug, Clone)]
pub struct RotationReport {
    /// Who this node was.
    pub old: PeerId,
    /// Who it is.
    pub new: PeerId,
    /// Fingerprint of the new public keys.
    pub fingerprint: String,
    /// Overlay addresses of this node now, IPv6 first; none while it is down.
    pub addresses: Vec<IpAddr>,
    /// Every network that was told.
    pub networks: Vec<RotatedNetwork>,
}

/// How a person names a peer: PeerID, unique prefix of it (at least 4 digits), name, `name.network` or overlay address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRef(pub String);

/// The answer to a ping.
#[derive(Debug, Clone)]
pub struct PingReply {
    /// Who answered.
    pub peer_id: PeerId,
    /// The name it has here.
    pub name: String,
    /// In-tunnel round-trip time.
    pub rtt: Duration,
    /// Whether it went through another member.
    pub kind: PathKind,
    /// Underlay address the answer came from; that of the relay where one is between.
    pub remote: SocketAddr,
    /// Through whom it went.
    pub via: Option<String>,
    /// Why this path and not a better one.
    pub why: String,
}

/// What became of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// In force now.
    Applied,
    /// Stored; in force from the next start.
    AfterRestart,
}

/// Why a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No such peer.
    #[error("no peer is called {0:?}")]
    UnknownPeer(String),
    /// The name fits several peers.
    #[error("{0:?} fits more than one peer: {1}")]
    AmbiguousPeer(String, String),
    /// The peer did not answer in time.
    #[error("no answer from {peer} within {waited:?}: {why}")]
    NoAnswer {
        /// Name of the peer.
        peer: String,
        /// How long it was waited for.
        waited: Duration,
        /// What is known of the cause.
        why: String,
    },
    /// The link was refused, by us or by the peer.
    #[error("{peer} refused the link: {why}")]
    Refused {
        /// Name of the peer.
        peer: String,
        /// The typed reason, as text.
        why: String,
    },
    /// The node is down.
    #[error("the node is down; `pqvpn up` brings it up")]
    Down,
    /// There is no session with the peer.
    #[error("no session with {0}")]
    NoSession(String),
    /// The setting is unknown or its value wrong.
    #[error("{0}")]
    BadSetting(String),
    /// The host refused a change.
    #[error("{0}")]
    Host(String),
    /// The DHT did not do it.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// The networks did not do it.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The key was not rotated.
    #[error(transparent)]
    Rotation(RotationError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl NodeHandle {
    /// Wraps the sending end of the node's command queue.
    #[must_use]
    pub const fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Waits until the task that owns the node has had a turn: one that hangs never answers.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn alive(&self) -> Result<(), NodeError> {
        self.ask(Command::Alive).await
    }

    /// Takes a snapshot of the node.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn snapshot(&self) -> Result<Snapshot, NodeError> {
        self.ask(Command::Snapshot).await
    }

    /// Brings the interface up.
    ///
    /// # Errors
    /// What the host refused.
    pub async fn up(&self) -> Result<(), NodeError> {
        self.ask(Command::Up).await?
    }

    /// Takes the interface down; the daemon stays.
    ///
    /// # Errors
    /// What the host refused.
    pub async fn down(&self) -> Result<(), NodeError> {
        self.ask(Command::Down).await?
    }

    /// Makes one authenticated round trip inside the tunnel, connecting first where needed.
    ///
    /// # Errors
    /// The peer is unknown, refused, or silent for `timeout`.
    pub async fn ping(&self, peer: PeerRef, timeout: Duration) -> Result<PingReply, NodeError> {
        self.ask(|tx| Command::Ping(peer, timeout, tx)).await?
    }

    /// Steps the post-quantum ratchet of the peer's session now.
    ///
    /// # Errors
    /// No such peer or no session.
    pub async fn rekey(&self, peer: PeerRef) -> Result<(), NodeError> {
        self.ask(|tx| Command::Rekey(peer, tx)).await?
    }

    #[cfg(test)]
    pub(crate) async fn say_end(&self, peer: PeerRef, code: u8) -> Result<(), NodeError> {
        self.ask(|tx| Command::SayEnd(peer, code, tx)).await
    }

    #[cfg(test)]
    pub(crate) async fn sleep(&self) -> Result<(), NodeError> {
        self.ask(Command::Sleep).await
    }

    /// Ends the peer's session; the next packet makes a new one.
    ///
    /// # Errors
    /// No such peer or no session.
    pub async fn disconnect(&self, peer: PeerRef) -> Result<(), NodeError> {
        self.ask(|tx| Command::Disconnect(peer, tx)).await?
    }

    /// Applies a setting of the config, named `section.key`.
    ///
    /// # Errors
    /// The setting is unknown or its value wrong.
    pub async fn set(&self, key: String, value: String) -> Result<SetOutcome, NodeError> {
        self.ask(|tx| Command::Set(key, value, tx)).await?
    }

    /// Which names are answered, where, and how this host comes to know them.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn dns_status(&self) -> Result<DnsReport, NodeError> {
        self.ask(Command::Dns).await
    }

    /// What this node forwards for others; none when its networks have too much to do to say.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn relaying(&self) -> Result<Option<RelayReport>, NodeError> {
        self.ask(Command::Relaying).await
    }

    /// What the network around this node allows, and how that is known.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn netcheck(&self) -> Result<NetReport, NodeError> {
        self.ask(Command::NetCheck).await
    }

    /// How the node stands in the DHT; answered also when the DHT is off.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn dht_status(&self) -> Result<DhtReport, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Status(tx))).await
    }

    /// Finds a record; a report without one means that nobody has it. Takes at most a lookup's deadline.
    ///
    /// # Errors
    /// No such peer, the DHT is off or the node down, or nobody can be asked.
    pub async fn dht_get(&self, what: RecordRef) -> Result<GetReport, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Get(what, tx))).await?
    }

    /// Publishes a value of our own under a name of at most 64 bytes, and keeps it published.
    ///
    /// # Errors
    /// The name or value is too long, the DHT is off, or nobody can be asked.
    pub async fn dht_put(&self, name: String, value: Vec<u8>) -> Result<PutReport, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Put(name, value, tx))).await?
    }

    /// Finds the nodes nearest to a point.
    ///
    /// # Errors
    /// As [`Self::dht_get`].
    pub async fn dht_lookup(&self, target: LookupTarget) -> Result<LookupReport, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Lookup(target, tx))).await?
    }

    /// Shows the routing table.
    ///
    /// # Errors
    /// The DHT is off.
    pub async fn dht_table(&self) -> Result<TableReport, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Table(tx))).await?
    }

    /// Lists the nodes the DHT starts from.
    ///
    /// # Errors
    /// The DHT is off.
    pub async fn bootstrap_list(&self) -> Result<Vec<DoorReport>, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::Doors(tx))).await?
    }

    /// Adds nodes to start from, until the daemon stops, and tries them; gives how many were new.
    ///
    /// # Errors
    /// The DHT is off, or a door is not usable; then none is added.
    pub async fn bootstrap_add(&self, doors: Vec<NewDoor>) -> Result<usize, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::AddDoors(doors, tx))).await?
    }

    /// Rotates the node's key: it goes on under another PeerID, in the same networks under the same names.
    ///
    /// # Errors
    /// The key is in memory only, the passphrase is missing or wrong, or something could not be written; then the node
    /// has the key it had.
    pub async fn rotate_keys(&self, order: RotateKeys) -> Result<RotationReport, NodeError> {
        self.ask(|tx| Command::RotateKeys(Box::new(order), tx)).await?
    }

    /// Names nodes to start from no more; gives how many of them nobody else names, so that they are not tried again.
    ///
    /// # Errors
    /// The DHT is off.
    pub async fn bootstrap_remove(&self, doors: Vec<GoneDoor>) -> Result<usize, NodeError> {
        self.ask(|tx| Command::Dht(DhtCommand::RemoveDoors(doors, tx))).await?
    }

    /// Stops the node and waits until the host is as it was before.
    pub async fn shutdown(&self) {
        let _stopped = self.ask(|done| Command::Shutdown(Farewell::Final, done)).await;
    }

    /// As [`Self::shutdown`], but packets for members go nowhere until the node has started again.
    pub(crate) async fn shut_to_start_again(&self) {
        let _stopped = self.ask(|done| Command::Shutdown(Farewell::Restart, done)).await;
    }

    /// Hands a command on; with nobody to take it its answer is dropped.
    pub(crate) async fn pass(&self, command: Command) {
        let _stopped = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NodeError> {
        let (tx, rx) = oneshot::channel();
        self.commands.send(command(tx)).await.map_err(|_closed| NodeError::Stopped)?;
        rx.await.map_err(|_dropped| NodeError::Stopped)
    }
}
