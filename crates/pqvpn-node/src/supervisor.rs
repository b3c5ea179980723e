// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that outlives its key: it is started again, within the same process, when its key is rotated.
//!
//! The supervisor stands between the handle and the node. Commands pass through; while the node starts again they wait.
//! What happens to the files, and in which order, is told in `membership/rotation.rs`.

mod at_rest;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    keystore::Passphrase,
    peer_id::PeerId,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::{
    Interface, StartError, StartOptions, clock,
    config::Config,
    dht,
    handle::{Command, NodeError, NodeHandle, RotateKeys, RotationReport, SetOutcome},
    link::Backend,
    membership::{self, Order, RotatedNetwork, Rotating, RotationError},
    node::{Node, pass_on_panic},
    snapshot::NodeState,
    state::set_live,
    store::{KeystoreFile, StoreError},
};

pub use at_rest::rotate_at_rest;

/// Commands that may wait for the node.
const QUEUE: usize = 64;
/// Sockets, device and store of the run before may be let go of later: a handshake or a carrier's dial under way has them
/// until it is given up.
const LET_GO: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(20);
/// How often a key of before that is still there is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// What a node and its successors are started with.
pub struct Supervised {
    /// The checked configuration.
    pub config: Config,
    /// Who this node is at first.
    pub identity: Identity,
    /// Where journal, networks and keystore live.
    pub state_dir: PathBuf,
    /// [`StartOptions::kept_in`].
    pub kept_in: Option<PathBuf>,
    /// Makes the source of overlay packets for each run.
    pub interface: Box<dyn Fn() -> Interface + Send + Sync>,
    /// Which QUIC implementation carries the links.
    pub backend: Backend,
    /// Where the key is kept; without it the key cannot be rotated.
    pub keystore: Option<KeystoreFile>,
}

/// The node that runs now.
struct Running {
    id: PeerId,
    handle: NodeHandle,
    /// `None` once the node has ended: it holds on to the node's sockets.
    networks: Option<membership::Port>,
    task: JoinHandle<()>,
}

struct Supervisor {
    options: Options,
    running: Running,
}

/// [`Supervised`] without the first identity.
struct Options {
    config: Config,
    state_dir: PathBuf,
    kept_in: Option<PathBuf>,
    interface: Box<dyn Fn() -> Interface + Send + Sync>,
    backend: Backend,
    keystore: Option<KeystoreFile>,
}

/// A next key on disk, not in force yet.
struct Prepared {
    /// Who the node is until it is.
    now: Identity,
    seed: IdentitySeed,
    file: [u8; 32],
}

impl Node {
    /// Starts a node that can rotate its key; the task ends after [`NodeHandle::shutdown`], or with the reason why the
    /// node did not start again; where a task of the node panics, this one does.
    ///
    /// # Errors
    /// [`StartError`]; everything done until then has been undone.
    pub async fn supervise(
        supervised: Supervised,
    ) -> Result<(NodeHandle, JoinHandle<Result<(), StartError>>), StartError> {
        let Supervised { config, identity, state_dir, kept_in, interface, backend, keystore } = supervised;
        let mut options = Options { config, state_dir, kept_in, interface, backend, keystore };
        let running = options.start(identity, NodeState::Up).await?;
        let (commands, waiting) = mpsc::channel(QUEUE);
        let task = tokio::spawn(Supervisor { options, running }.run(waiting));
        Ok((NodeHandle::new(commands), task))
    }
}

impl Options {
    async fn start(&mut self, identity: Identity, begin: NodeState) -> Result<Running, StartError> {
        let id = identity.peer_id();
        let options = StartOptions {
            config: self.config.clone(),
            identity,
            state_dir: self.state_dir.clone(),
            kept_in: self.kept_in.clone(),
            interface: (self.interface)(),
            backend: self.backend,
        };
        let (handle, networks, task) = Node::start_parts(options, begin).await?;
        Ok(Running { id, handle, networks: Some(networks), task })
    }

    /// Starts the next run, where what the one before held may not be free yet.
    async fn start_again(&mut self, seed: &IdentitySeed, begin: NodeState) -> Result<Running, StartError> {
        let until = clock::now() + LET_GO;
        loop {
            let identity = Identity::from_seed(seed).map_err(std::io::Error::other)?;
            match self.start(identity, begin).await {
                Err(error) if clock::now() < until => {
                    tracing::debug!(%error, "not started again yet");
                    sleep(AGAIN).await;
                }
                started => return started,
            }
        }
    }
}

impl Supervisor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), StartError> {
        let mut look = self.expire_old().await;
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::RotateKeys(order, reply)) => {
                        let report = self.rotate(*order).await;
                        look = self.expire_old().await;
                        match report {
                            Ok(report) => drop(reply.send(Ok(report))),
                            Err(Ended::Refused(error)) => drop(reply.send(Err(error.into()))),
                            Err(Ended::Start(error)) => {
                                drop(reply.send(Err(RotationError::Restart(error.to_string()).into())));
                                return Err(error);
                            }
                        }
                    }
                    Some(Command::Set(key, value, reply)) => self.set(key, value, reply).await,
                    // Should the node have gone, the answer is dropped, and whoever asked is told so.
                    Some(command) => self.running.handle.pass(command).await,
                    None => {
                        self.running.handle.shutdown().await;
                        pass_on_panic(self.running.task.await);
                        return Ok(());
                    }
                },
                ended = &mut self.running.task => {
                    pass_on_panic(ended);
                    return Ok(());
                }
                () = wait(look) => look = self.expire_old().await,
            }
        }
    }

    /// Has the node change a setting, and the runs after it begin with that.
    async fn set(&mut self, key: String, value: String, reply: oneshot::Sender<Result<SetOutcome, NodeError>>) {
        let (answer, outcome) = oneshot::channel();
        self.running.handle.pass(Command::Set(key.clone(), value.clone(), answer)).await;
        let Ok(outcome) = outcome.await else { return };
        if outcome.is_ok() {
            let _none_that_a_running_node_follows = set_live(&mut self.options.config, &key, &value);
        }
        let _nobody_waits = reply.send(outcome);
    }

    /// Removes the key before when its days are over; gives when to look again.
    async fn expire_old(&self) -> Option<Instant> {
        let keystore = self.options.keystore.clone()?;
        let left = spawn_blocking(move || keystore.expire_old()).await.ok()?;
        let left = left.inspect_err(|error| tracing::warn!(%error, "the key before is not removed")).ok().flatten();
        left.map(|left| clock::now() + left.min(LOOK_AGAIN))
    }

    async fn rotate(&mut self, order: RotateKeys) -> Result<RotationReport, Ended> {
        let RotateKeys { passphrase } = order;
        let keystore = self.options.keystore.clone().ok_or(RotationError::NotKept)?;
        let was = self.running.handle.snapshot().await.map_or(NodeState::Up, |now| now.state);
        let old = self.running.id;
        let prepared = prepare(keystore.clone(), passphrase, old).await?;
        let networks = settle(keystore, self.tell(&prepared).await).await?;
        self.go_on_as(&prepared.seed, was).await.map_err(Ended::Start)?;
        Ok(self.report(old, networks, &prepared.seed).await)
    }

    /// Has every network told, and waits until it is decided and heard.
    async fn tell(&self, prepared: &Prepared) -> Result<Vec<RotatedNetwork>, RotationError> {
        let next = Identity::from_seed(&prepared.seed).map_err(StoreError::from)?;
        let (reply, told) = oneshot::channel();
        let rotating = Rotating { next: next.into(), file: prepared.file, reply };
        let ordered = |networks: &membership::Port| networks.order(Order::Rotate(Box::new(rotating)));
        if !self.running.networks.as_ref().is_some_and(ordered) {
            return Err(RotationError::Busy);
        }
        told.await.unwrap_or(Err(RotationError::Undecided))
    }

    async fn go_on_as(&mut self, seed: &IdentitySeed, begin: NodeState) -> Result<(), StartError> {
        self.running.handle.shut_to_start_again().await;
        if let Err(error) = (&mut self.running.task).await {
            tracing::error!(%error, "the node failed while it stopped");
        }
        self.running.networks = None;
        let (dir, old) = (self.options.state_dir.clone(), self.running.id);
        let new = Identity::from_seed(seed).map_err(std::io::Error::other)?.peer_id();
        let _left_as_it_is = spawn_blocking(move || dht::hand_over(&dir, &old, &new)).await;
        self.running = self.options.start_again(seed, begin).await?;
        Ok(())
    }

    async fn report(&self, old: PeerId, networks: Vec<RotatedNetwork>, seed: &IdentitySeed) -> RotationReport {
        let fingerprint = Identity::from_seed(seed).map(|identity| identity.public().fingerprint());
        let addresses = self.running.handle.snapshot().await.map(|now| now.addresses);
        RotationReport {
            old,
            new: self.running.id,
            fingerprint: fingerprint.unwrap_or_default(),
            addresses: addresses.unwrap_or_default(),
            networks,
        }
    }
}

/// Why a rotation did not end well.
enum Ended {
    /// The node runs as before.
    Refused(RotationError),
    /// The node does not run any more.
    Start(StartError),
}

impl<E: Into<RotationError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Opens the keystore, which proves that whoever asks has its passphrase, and writes the next key beside it under the same.
/// `runs`: whose key it has to be.
async fn prepare(
    keystore: KeystoreFile,
    passphrase: Option<Passphrase>,
    runs: PeerId,
) -> Result<Prepared, RotationError> {
    let preparing = spawn_blocking(move || {
        let now = Identity::from_seed(&keystore.load(passphrase.as_ref())?).map_err(StoreError::from)?;
        if now.peer_id() != runs {
            return Err(RotationError::OtherKey);
        }
        keystore.refuse_while_rotating()?;
        let seed = IdentitySeed::generate().map_err(StoreError::from)?;
        // A passphrase for a keystore that has none is not used, and none for the next.
        let passphrase = passphrase.filter(|_| keystore.is_encrypted().unwrap_or(true));
        let file = keystore.prepare_next(&seed, passphrase.as_ref())?;
        Ok(Prepared { now, seed, file })
    });
    preparing.await.unwrap_or(Err(RotationError::Busy))
}

/// Makes the next key the keystore's if it was decided so, and removes it if not; where nobody knows, both stay.
async fn settle<T>(keystore: KeystoreFile, decided: Result<T, RotationError>) -> Result<T, RotationError> {
    match &decided {
        Ok(_) => {
            // The rotation is a fact. Should the files not follow now, the next start makes them.
            if let Err(error) = on_disk(keystore, KeystoreFile::adopt_next).await {
                tracing::error!(%error, "the next key is not the keystore yet; the next start tries again");
            }
        }
        Err(RotationError::Undecided) => {}
        Err(_) => on_disk(keystore, KeystoreFile::drop_next).await?,
    }
    decided
}

async fn on_disk(
    keystore: KeystoreFile,
    act: impl FnOnce(&KeystoreFile) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), RotationError> {
    let done = spawn_blocking(move || act(&keystore)).await;
    Ok(done.unwrap_or(Ok(()))?)
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

impl From<RotationError> for NodeError {
    fn from(error: RotationError) -> Self {
        Self::Rotation(error)
    }
}

#[cfg(test)]
mod tests;
