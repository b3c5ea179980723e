// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carried ways of the data plane, and what is at the other end of each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pqvpn_dataplane::{
    Control,
    way::{CarrierSink, Way, WayError, WayId},
};

use super::{ladder::Rung, queue::Sink};
use crate::entropy;

/// Numbers of carried ways have this bit, those through members have not.
const CARRIED: u64 = 1 << 63;

/// Whether an address is that of a way through another member.
pub(crate) fn is_by_member(at: SocketAddr) -> bool {
    WayId::of(at).is_some_and(|id| id.0 & CARRIED == 0)
}

/// Whether an address is that of a carried way.
pub(crate) fn is_carried(at: SocketAddr) -> bool {
    WayId::of(at).is_some_and(|id| id.0 & CARRIED != 0)
}

/// A number for a way through another member.
pub(crate) const fn by_member(random: u64) -> u64 {
    random & !CARRIED
}

/// The data plane as carriers need it.
pub(crate) trait Plane: Send + Sync {
    /// Sends a way of ours.
    ///
    /// # Errors
    /// [`WayError`].
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError>;
    /// Ends it.
    fn remove_way(&self, id: WayId);
    /// Takes what came on it; gives how many there was room for.
    fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize;
}

impl Plane for Control {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        Self::set_way(self, id, way)
    }

    fn remove_way(&self, id: WayId) {
        Self::remove_way(self, id);
    }

    fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize {
        Self::inject(self, id, datagrams)
    }
}

/// What is at the other end of a carried way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rung: Rung,
    /// Where the other end of the carrier is, or seems to be.
    pub(crate) at: SocketAddr,
}

/// All carried ways of this node.
pub(super) struct Ways {
    plane: Arc<dyn Plane>,
    places: Mutex<BTreeMap<SocketAddr, Place>>,
}

/// A carried way; it ends when this is dropped.
pub(super) struct OpenWay {
    ways: Arc<Ways>,
    pub(super) id: WayId,
    pub(super) sink: Arc<Sink>,
}

impl Ways {
    pub(super) fn new(plane: Arc<dyn Plane>) -> Arc<Self> {
        Arc::new(Self { plane, places: Mutex::default() })
    }

    pub(super) const fn plane(&self) -> &Arc<dyn Plane> {
        &self.plane
    }

    /// A way that leaves by a queue; `None` where the data plane has no room.
    pub(super) fn open(self: &Arc<Self>, place: Place) -> Option<OpenWay> {
        let sink = Arc::new(Sink::default());
        self.open_by(place, Arc::clone(&sink) as Arc<dyn CarrierSink>, sink)
    }

    /// A way that leaves by `by`.
    pub(super) fn open_by(
        self: &Arc<Self>,
        place: Place,
        by: Arc<dyn CarrierSink>,
        sink: Arc<Sink>,
    ) -> Option<OpenWay> {
        let id = WayId(entropy::u64() | CARRIED);
        let set = self.plane.set_way(id, Way::Carried(by));
        set.inspect_err(|error| tracing::debug!(%error, "no carried way")).ok()?;
        self.places().insert(id.address(), place);
        Some(OpenWay { ways: Arc::clone(self), id, sink })
    }

    pub(super) fn place(&self, at: SocketAddr) -> Option<Place> {
        self.places().get(&at).copied()
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenWay {
    fn drop(&mut self) {
        self.ways.plane.remove_way(self.id);
        self.ways.places().remove(&self.id.address());
        let dropped = self.sink.dropped();
        if dropped > 0 {
            tracing::debug!(dropped, "datagrams that a carrier did not take in time");
        }
    }
}
