// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node of a simulated world.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use pqvpn_crypto::{
    identity::Identity,
    peer_id::PeerId,
    tls::{Admission, LinkCrypto},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Host, Sent, Wire, plane::SimPlane};
use crate::{
    StartError, carrier::Carriers, config::Config, events::Overflow, handle::NodeHandle, host::HostSide,
    link::Endpoint, node::Ground, session::Slots, snapshot::NodeState,
};

/// As for a real node.
const QUEUE: usize = 1024;
const VIEWS: usize = 16;
const INNER_MTU: u16 = 1420;

type MakeEndpoint = Box<dyn FnOnce(Arc<dyn Admission>) -> Arc<dyn Endpoint> + Send>;

/// What a simulated node is started with.
pub struct Setup {
    /// Its configuration; nothing that needs the host may be switched on.
    pub config: Config,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it keeps is here.
    pub state_dir: PathBuf,
    /// Where it runs.
    pub host: Arc<Host>,
    /// What is below it.
    pub wire: Arc<dyn Wire>,
    /// Makes its links, given whom TLS would let in.
    pub endpoint: MakeEndpoint,
}

/// A running one.
pub struct SimNode {
    handle: NodeHandle,
    plane: Arc<SimPlane>,
    host: Arc<Host>,
    task: JoinHandle<()>,
    changes: mpsc::Sender<crate::host::watch::News>,
}

impl SimNode {
    /// Starts it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let host = Arc::clone(&setup.host);
        host.run(Self::start_here(setup)).await
    }

    async fn start_here(setup: Setup) -> Result<Self, StartError> {
        let Setup { config, identity, state_dir, host, wire, endpoint } = setup;
        let slots = Arc::new(Slots::starting());
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), Arc::clone(&slots) as Arc<dyn Admission>));
        let endpoint = endpoint(Arc::clone(&slots) as Arc<dyn Admission>);
        let (events, packets) = mpsc::channel(QUEUE);
        let overflow = Arc::new(Overflow::default());
        let plane = Arc::new(SimPlane::new(wire, Arc::clone(&slots), events, Arc::clone(&overflow)));
        let (changes, changed) = mpsc::channel(1);
        let listen: Vec<SocketAddr> = config.node.listen.clone();
        let (shown, views) = mpsc::channel(VIEWS);
        let ground = Ground {
            config,
            identity,
            kept_in: state_dir.clone(),
            host: HostSide::new(INNER_MTU, state_dir),
            standing: Vec::new(),
            listen,
            inner_mtu: INNER_MTU,
            control: Arc::clone(&plane) as _,
            forwarder: Arc::clone(&plane) as _,
            plane: None,
            slots,
            crypto,
            carriers: Carriers::none(Arc::clone(&endpoint), Arc::clone(&plane) as _)?,
            strangers: Arc::clone(&endpoint),
            endpoint,
            packets,
            overflow,
            changes: Box::new(move || (None, changed)),
        };
        let (handle, _networks, task) = ground.start(NodeState::Up, Some(shown), views).await?;
        Ok(Self { handle, plane, host, task, changes })
    }

    /// What a person can ask of it.
    #[must_use]
    pub const fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Peers, sessions, receiver indices and parked packets of its data plane.
    #[must_use]
    pub fn sizes(&self) -> [usize; 4] {
        self.plane.sizes()
    }

    /// Has an inner packet sent to a peer.
    pub fn send(&self, peer: PeerId, packet: Vec<u8>) -> Sent {
        self.plane.send_packet(peer, packet)
    }

    /// Hands in a datagram.
    pub fn receive(&self, from: SocketAddr, datagram: &mut [u8]) {
        self.plane.receive(from, datagram);
    }

    /// Says that the host has other addresses.
    pub fn network_changed(&self) {
        let _told_already = self.changes.try_send(crate::host::watch::News::network(true));
    }

    /// Whether a task of it has ended by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&self) {
        self.host.kill();
        self.task.abort();
    }

    /// Ends it as an operator does.
    pub async fn stop(&self) {
        self.handle.shutdown().await;
    }
}
