// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's only door for the control API and the CLI: commands in, snapshots out.

use std::{net::SocketAddr, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::snapshot::Snapshot;

/// A cheap, cloneable sender of commands to the task that owns the node.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
}

/// What the node can be told or asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
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
    /// End a peer's session and link; the next packet makes a new one.
    Disconnect(PeerRef, oneshot::Sender<Result<(), NodeError>>),
    /// Apply a setting that can change while running.
    Set(String, String, oneshot::Sender<Result<SetOutcome, NodeError>>),
    /// Stop the node and undo what it did to the host.
    Shutdown(oneshot::Sender<()>),
}

/// How a person names a peer: PeerID, unique prefix of it (at least 4 digits), name or overlay address.
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
    /// Underlay address the answer came from.
    pub remote: SocketAddr,
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

    /// Stops the node and waits until the host is as it was before.
    pub async fn shutdown(&self) {
        let _stopped = self.ask(Command::Shutdown).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NodeError> {
        let (tx, rx) = oneshot::channel();
        self.commands.send(command(tx)).await.map_err(|_closed| NodeError::Stopped)?;
        rx.await.map_err(|_dropped| NodeError::Stopped)
    }
}
