// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data plane that remembers what it is told, for tests.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId, schedule::Role};
use pqvpn_dataplane::way::{CarrierGroup, GroupId, Way, WayError, WayId};
use tokio::sync::Notify;

use super::{Link, Plane};
use crate::link::{Connection, ControlRecv, ControlSend, Endpoint, EndpointStats, LinkError};

/// An endpoint that reaches nobody and remembers where it tried: by name, and whoever answers.
#[derive(Debug, Default)]
pub(super) struct Nowhere(pub(super) Mutex<Vec<SocketAddr>>, pub(super) Mutex<Vec<SocketAddr>>);

impl Endpoint for Nowhere {
    fn connect(&self, at: SocketAddr, _: PeerId, _: Option<PublicIdentity>) -> BoxFuture<'static, Link> {
        self.0.lock().unwrap().push(at);
        pending().boxed()
    }

    fn connect_anybody(&self, at: SocketAddr) -> BoxFuture<'static, Link> {
        self.1.lock().unwrap().push(at);
        pending().boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Link>> {
        pending().boxed()
    }

    fn close(&self) {}

    fn drained(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        Err(LinkError::ClosedByUs)
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::default()
    }
}

/// A link of somebody by a way.
#[derive(Debug)]
pub(super) struct FakeLink {
    pub(super) peer: PeerId,
    pub(super) remote: SocketAddr,
}

impl Connection for FakeLink {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn public_identity(&self) -> &PublicIdentity {
        unimplemented!("nobody asks")
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn side(&self) -> Role {
        Role::Responder
    }

    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        pending().boxed()
    }

    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        pending().boxed()
    }

    fn export(&self, _: &[u8], _: &[u8], _: &mut [u8]) -> Result<(), LinkError> {
        Err(LinkError::ClosedByUs)
    }

    fn close(&self, _: u32, _: &str) {}

    fn closed(&self) -> BoxFuture<'static, LinkError> {
        pending().boxed()
    }

    fn rtt(&self) -> Duration {
        Duration::ZERO
    }

    fn handshake_time(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Default)]
pub(super) struct FakePlane {
    ways: Mutex<Vec<(WayId, Way)>>,
    group: Mutex<Option<Arc<dyn CarrierGroup>>>,
    last: Mutex<Option<WayId>>,
    pub(super) came: Mutex<Vec<Vec<u8>>>,
    notify: Notify,
}

impl Plane for FakePlane {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        self.ways.lock().unwrap().push((id, way));
        Ok(())
    }

    fn remove_way(&self, id: WayId) {
        self.ways.lock().unwrap().retain(|(known, _)| *known != id);
    }

    fn tunnel(&self) -> u32 {
        0
    }

    fn set_group(&self, _: GroupId, group: Option<Arc<dyn CarrierGroup>>) {
        *self.group.lock().unwrap() = group;
    }

    fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize {
        *self.last.lock().unwrap() = Some(id);
        self.came.lock().unwrap().extend(datagrams.iter().map(|datagram| datagram.to_vec()));
        self.notify.notify_one();
        datagrams.len()
    }
}

impl FakePlane {
    pub(super) fn shared(self: &Arc<Self>) -> Arc<dyn Plane> {
        Arc::clone(self) as Arc<dyn Plane>
    }

    /// How many ways there are.
    pub(super) fn open(&self) -> usize {
        self.ways.lock().unwrap().len()
    }

    pub(super) fn way(&self, n: usize) -> Way {
        self.ways.lock().unwrap()[n].1.clone()
    }

    pub(super) fn way_id(&self, n: usize) -> Option<WayId> {
        self.ways.lock().unwrap().get(n).map(|(id, _)| *id)
    }

    /// The way that the last datagram came on.
    pub(super) fn last_way(&self) -> Option<WayId> {
        *self.last.lock().unwrap()
    }

    /// Sends on a way of the group.
    pub(super) fn send(&self, way: WayId, datagram: &[u8]) -> bool {
        self.group.lock().unwrap().as_ref().is_some_and(|group| group.send(way, datagram))
    }

    /// How many datagrams came.
    pub(super) fn came(&self) -> usize {
        self.came.lock().unwrap().len()
    }

    pub(super) async fn wait_for(&self, datagrams: usize) {
        while self.came() < datagrams {
            self.notify.notified().await;
        }
    }
}
