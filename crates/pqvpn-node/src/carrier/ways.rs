// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carried ways of the data plane, and what is at the other end of each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use pqvpn_dataplane::{
    Control,
    way::{CarrierSink, Way, WayError, WayId},
};

use super::{ladder::Rung, queue::Sink};
use crate::{
    entropy,
    link::{Behind, Connection},
};

/// Numbers of carried ways have this bit, those through members have not.
const CARRIED: u64 = 1 << 63;
/// A way was used by somebody authenticated so lately that it is in use still.
const PROVED: Duration = Duration::from_secs(60);
/// How often it is looked where links lead.
const LOOK: Duration = Duration::from_secs(4);

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

/// A carried way, and when it was last seen to lead to somebody authenticated.
struct Held {
    place: Place,
    proved: Option<Instant>,
}

/// Links that may lead over carried ways: a way belongs to nobody until one does.
#[derive(Default)]
struct Links {
    all: Vec<Weak<dyn Connection>>,
    /// With so many, those that are gone are forgotten.
    prune_at: usize,
    looked: Option<Instant>,
}

/// All carried ways of this node.
pub(crate) struct Ways {
    plane: Arc<dyn Plane>,
    places: Mutex<BTreeMap<SocketAddr, Held>>,
    links: Mutex<Links>,
}

/// A carried way; it ends when this is dropped.
pub(super) struct OpenWay {
    ways: Arc<Ways>,
    pub(super) id: WayId,
    pub(super) sink: Arc<Sink>,
}

impl Ways {
    pub(crate) fn new(plane: Arc<dyn Plane>) -> Arc<Self> {
        Arc::new(Self { plane, places: Mutex::default(), links: Mutex::default() })
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
        self.places().insert(id.address(), Held { place, proved: None });
        Some(OpenWay { ways: Arc::clone(self), id, sink })
    }

    pub(crate) fn place(&self, at: SocketAddr) -> Option<Place> {
        self.places().get(&at).map(|held| held.place)
    }

    /// Handshakes over a carried way are judged by the host at its other end: ways cost that host little.
    pub(crate) fn behind(self: &Arc<Self>) -> Behind {
        let ways = Arc::clone(self);
        Behind::new(move |at| Some(ways.place(at)?.at.ip()))
    }

    /// Somebody authenticated was heard on a way.
    pub(super) fn prove(&self, now: Instant, at: SocketAddr) {
        if let Some(held) = self.places().get_mut(&at) {
            held.proved = Some(now);
        }
    }

    /// Whether somebody authenticated uses a way.
    pub(super) fn is_proved(&self, now: Instant, at: SocketAddr) -> bool {
        let proved = self.places().get(&at).and_then(|held| held.proved);
        proved.is_some_and(|proved| now.saturating_duration_since(proved) < PROVED)
    }

    /// A link whose other end is authenticated: the ways that it leads over are not a stranger's.
    pub(super) fn note_link(&self, now: Instant, link: &Arc<dyn Connection>) {
        let mut links = self.links();
        if links.all.len() >= links.prune_at {
            links.all.retain(|link| link.strong_count() > 0);
            links.prune_at = (2 * links.all.len()).max(64);
        }
        links.all.push(Arc::downgrade(link));
        drop(links);
        self.prove(now, link.remote());
    }

    /// Looks where links lead by now: they move to other ways as carriers are made again.
    pub(super) fn look_at_links(&self, now: Instant) {
        let mut links = self.links();
        if links.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        links.looked = Some(now);
        let all: Vec<Arc<dyn Connection>> = links.all.iter().filter_map(Weak::upgrade).collect();
        drop(links);
        all.iter().map(|link| link.remote()).filter(|at| is_carried(*at)).for_each(|at| self.prove(now, at));
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Held>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenWay {
    /// Whether somebody authenticated uses it.
    pub(super) fn is_proved(&self, now: Instant) -> bool {
        self.ways.is_proved(now, self.id.address())
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

#[cfg(test)]
mod tests {
    use super::{super::fake::FakePlane, *};
    use crate::link::{Gate, GateConfig, Verdict};

    #[test]
    fn all_carried_ways_of_a_host_have_one_rate_of_handshakes() {
        let ways = Ways::new(Arc::<FakePlane>::default());
        let (mut gate, behind, now) = (Gate::new(GateConfig::default()), ways.behind(), Instant::now());
        let open: Vec<OpenWay> = (0..9)
            .filter_map(|port| ways.open(Place { rung: Rung::Wss, at: SocketAddr::from(([203, 0, 113, 7], port)) }))
            .collect();
        let verdicts = open.iter().map(|way| gate.judge(now, behind.host(way.id.address()), false, 0));
        assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Accept).count(), 5);
        let other = SocketAddr::from(([203, 0, 113, 8], 1));
        assert_eq!(behind.host(other), other.ip(), "who comes by UDP stands for itself");
    }
}
