// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carried ways of the data plane, and what is at the other end of each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::{
    Control,
    way::{CarrierGroup, CarrierSink, GroupId, Way, WayError, WayId},
};

use tokio::time::{Instant as Clock, interval};

use super::{ladder::Rung, queue::Sink};
use crate::{
    entropy,
    link::{Behind, Connection},
};

/// Numbers of carried ways have this bit, those through members have not.
const CARRIED: u64 = 1 << 63;
/// Numbers of those in a group have this one too.
const GROUPED: u64 = 1 << 62;
/// A way was used by somebody authenticated so lately that it is in use still.
const PROVED: Duration = Duration::from_secs(60);
/// How long a carrier may be there without a link over it: the path is no secret to who knows the PeerID, and who
/// answers there may be anybody.
pub(super) const BARE: Duration = Duration::from_secs(15);
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

/// A number for a group of carried ways.
pub(super) fn group() -> GroupId {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let kind = ((CARRIED | GROUPED) >> 48) as u16;
    GroupId(kind | NEXT.fetch_add(1, Ordering::Relaxed) & !kind)
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
    /// Sets what carries a group of ways, or nothing any more.
    fn set_group(&self, id: GroupId, group: Option<Arc<dyn CarrierGroup>>);
    /// Takes what came on it; gives how many there was room for.
    fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize;
    /// The index of the interface that leads into the tunnel, 0 if none does.
    fn tunnel(&self) -> u32;
}

impl Plane for Control {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        Self::set_way(self, id, way)
    }

    fn remove_way(&self, id: WayId) {
        Self::remove_way(self, id);
    }

    fn set_group(&self, id: GroupId, group: Option<Arc<dyn CarrierGroup>>) {
        Self::set_group(self, id, group);
    }

    fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize {
        Self::inject(self, id, datagrams)
    }

    fn tunnel(&self) -> u32 {
        Self::tunnel(self)
    }
}

/// What is at the other end of a carried way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rung: Rung,
    /// Where the other end of the carrier is, or seems to be.
    pub(crate) at: SocketAddr,
}

/// Who uses a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Nobody who has shown who they are.
    Nobody,
    /// Somebody of the DHT, as anybody may be.
    Stranger,
    /// A peer of ours: a member of a network, or one the configuration names.
    Peer,
}

/// Whether somebody is a peer of ours.
type IsPeer = dyn Fn(&PeerId) -> bool + Send + Sync;

/// A carried way, and when it was last seen to lead to a stranger of whom we know who it is, and to a peer.
struct Held {
    place: Place,
    stranger: Option<Instant>,
    peer: Option<Instant>,
}

impl Held {
    fn used_by(&self, now: Instant) -> Use {
        let is_late = |at: Instant| now.saturating_duration_since(at) < PROVED;
        match (self.peer.is_some_and(is_late), self.stranger.is_some_and(is_late)) {
            (true, _) => Use::Peer,
            (false, true) => Use::Stranger,
            (false, false) => Use::Nobody,
        }
    }
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
    is_peer: Box<IsPeer>,
    places: Mutex<BTreeMap<SocketAddr, Held>>,
    links: Mutex<Links>,
}

/// A carried way; it ends when this is dropped.
pub(super) struct OpenWay {
    ways: Arc<Ways>,
    pub(super) id: WayId,
    pub(super) sink: Arc<Sink>,
}

/// The ways of a group; they end when this is dropped.
pub(super) struct GroupWays {
    ways: Arc<Ways>,
    id: GroupId,
}

impl Ways {
    pub(crate) fn new(plane: Arc<dyn Plane>, is_peer: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { plane, is_peer: Box::new(is_peer), places: Mutex::default(), links: Mutex::default() })
    }

    pub(super) const fn plane(&self) -> &Arc<dyn Plane> {
        &self.plane
    }

    /// A way that leaves by a queue; `None` where the data plane has no room.
    pub(super) fn open(self: &Arc<Self>, place: Place) -> Option<OpenWay> {
        let (id, sink) = (WayId((entropy::u64() | CARRIED) & !GROUPED), Arc::new(Sink::default()));
        let set = self.plane.set_way(id, Way::Carried(Arc::clone(&sink) as Arc<dyn CarrierSink>));
        set.inspect_err(|error| tracing::debug!(%error, "no carried way")).ok()?;
        self.note(id, place);
        Some(OpenWay { ways: Arc::clone(self), id, sink })
    }

    /// Ways that leave by `by`.
    pub(super) fn open_group(self: &Arc<Self>, id: GroupId, by: Arc<dyn CarrierGroup>) -> GroupWays {
        self.plane.set_group(id, Some(by));
        GroupWays { ways: Arc::clone(self), id }
    }

    fn note(&self, id: WayId, place: Place) {
        self.places().insert(id.address(), Held { place, stranger: None, peer: None });
    }

    pub(crate) fn place(&self, at: SocketAddr) -> Option<Place> {
        self.places().get(&at).map(|held| held.place)
    }

    /// Handshakes over a carried way are judged by the host at its other end: ways cost that host little.
    pub(crate) fn behind(self: &Arc<Self>) -> Behind {
        let ways = Arc::clone(self);
        Behind::new(move |at| Some(ways.place(at)?.at.ip()))
    }

    /// A peer of ours was heard on a way.
    pub(super) fn prove(&self, now: Instant, at: SocketAddr) {
        if let Some(held) = self.places().get_mut(&at) {
            held.peer = Some(now);
        }
    }

    fn prove_link(&self, now: Instant, link: &dyn Connection) {
        let is_peer = (self.is_peer)(&link.peer());
        // Asked for before the lock: the link has one of its own, under which packets leave by ways.
        let at = link.remote();
        if let Some(held) = self.places().get_mut(&at) {
            *(if is_peer { &mut held.peer } else { &mut held.stranger }) = Some(now);
        }
    }

    /// Who uses a way.
    pub(super) fn used_by(&self, now: Instant, at: SocketAddr) -> Use {
        self.places().get(&at).map_or(Use::Nobody, |held| held.used_by(now))
    }

    /// Until nobody authenticated has used a way for a while: what comes on it from anybody else keeps it not.
    pub(super) async fn until_bare(&self, at: SocketAddr) {
        let (mut looks, mut used_at) = (interval(LOOK), Clock::now());
        while used_at.elapsed() < BARE {
            looks.tick().await;
            let now = Clock::now().into_std();
            self.look_at_links(now);
            if self.used_by(now, at) > Use::Nobody {
                used_at = Clock::now();
            }
        }
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
        self.prove_link(now, link.as_ref());
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
        all.iter().filter(|link| is_carried(link.remote())).for_each(|link| self.prove_link(now, link.as_ref()));
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Held>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupWays {
    /// Notes what is at the other end of one more.
    pub(super) fn note(&self, way: WayId, place: Place) {
        self.ways.note(way, place);
    }

    /// One is no more.
    pub(super) fn forget(&self, way: WayId) {
        self.ways.places().remove(&way.address());
    }

    /// Who uses one.
    pub(super) fn used_by(&self, now: Instant, way: WayId) -> Use {
        self.ways.used_by(now, way.address())
    }

    pub(super) fn look_at_links(&self, now: Instant) {
        self.ways.look_at_links(now);
    }

    /// The index of the interface that leads into the tunnel, 0 if none does.
    pub(super) fn tunnel(&self) -> u32 {
        self.ways.plane.tunnel()
    }

    /// Takes what came on one; what finds no room is counted by the data plane.
    pub(super) fn inject(&self, way: WayId, datagrams: &[&[u8]]) {
        self.ways.plane.inject(way, datagrams);
    }
}

impl Drop for GroupWays {
    fn drop(&mut self) {
        self.ways.plane.set_group(self.id, None);
        let id = self.id;
        self.ways.places().retain(|at, _| WayId::of(*at).is_none_or(|way| id.way(way.0) != way));
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
    use super::{
        super::fake::{FakeLink, FakePlane},
        *,
    };
    use crate::link::{Gate, GateConfig, Room, Verdict};

    fn opened(ways: &Arc<Ways>, port: u16) -> OpenWay {
        ways.open(Place { rung: Rung::Wss, at: SocketAddr::from(([203, 0, 113, 7], port)) }).unwrap()
    }

    #[test]
    fn who_completes_a_handshake_is_a_stranger_until_it_is_a_peer_of_ours() {
        let member = PeerId::from_bytes([1; 32]);
        let ways = Ways::new(Arc::<FakePlane>::default(), move |peer| *peer == member);
        let (mut now, both) = (Instant::now(), [opened(&ways, 1), opened(&ways, 2)]);
        let uses = |now| both.each_ref().map(|way| ways.used_by(now, way.id.address()));
        assert_eq!(uses(now), [Use::Nobody; 2]);
        let links = [member, PeerId::from_bytes([2; 32])].into_iter().zip(&both).map(|(peer, way)| {
            let link: Arc<dyn Connection> = Arc::new(FakeLink { peer, remote: way.id.address() });
            ways.note_link(now, &link);
            link
        });
        let links: Vec<_> = links.collect();
        for _ in 0..20 {
            ways.look_at_links(now);
            assert_eq!(uses(now), [Use::Peer, Use::Stranger], "as long as the links are there");
            now += Duration::from_secs(10);
        }
        drop(links);
        ways.look_at_links(now);
        assert_eq!(uses(now + PROVED), [Use::Nobody; 2]);
        ways.prove(now + PROVED, both[1].id.address());
        assert_eq!(uses(now + PROVED), [Use::Nobody, Use::Peer], "a session is a peer's");
    }

    #[test]
    fn all_carried_ways_of_a_host_have_one_rate_of_handshakes() {
        let ways = Ways::new(Arc::<FakePlane>::default(), |_| true);
        let (mut gate, behind, now) = (Gate::new(GateConfig::default()), ways.behind(), Instant::now());
        let open: Vec<OpenWay> = (0..9)
            .filter_map(|port| ways.open(Place { rung: Rung::Wss, at: SocketAddr::from(([203, 0, 113, 7], port)) }))
            .collect();
        let verdicts = open.iter().map(|way| gate.judge(now, behind.host(way.id.address()), false, 0, || Room::Free));
        assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Accept).count(), 5);
        let other = SocketAddr::from(([203, 0, 113, 8], 1));
        assert_eq!(behind.host(other), other.ip(), "who comes by UDP stands for itself");
    }
}
