// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data plane that remembers what it is told, for tests.

use std::sync::{Arc, Mutex};

use pqvpn_dataplane::way::{Way, WayError, WayId};
use tokio::sync::Notify;

use super::Plane;

#[derive(Default)]
pub(super) struct FakePlane {
    ways: Mutex<Vec<(WayId, Way)>>,
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

    fn inject(&self, _: WayId, datagrams: &[&[u8]]) -> usize {
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
