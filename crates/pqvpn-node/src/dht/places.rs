// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places for the links of strangers: few, spread over networks, and the one least recently used leaves first.
//!
//! Pinned peers need no place, so that strangers can never be in their way.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::control::CloseReason;
use thiserror::Error;

use super::usage::{Requests, Usage};
use crate::{clock, link::Connection, path::is_relayed};

/// Links strangers may hold with us at once.
pub(crate) const MAX_STRANGERS: usize = 128;
/// Those of one public network (IPv4 /24, IPv6 /48).
const MAX_PER_NETWORK: usize = 8;
/// Those of one address of the same site; and those that something carries, a relay or a WebSocket: whoever is behind it is
/// not known by an address.
const MAX_CARRIED: usize = 32;
/// Those of one stranger: one is usual, a second crosses or replaces it.
pub(crate) const MAX_PER_STRANGER: usize = 2;

/// Requests of all strangers together, a second and at once: each costs two signatures' time of the thread that all else
/// shares. Those of one network have a share of it.
const STRANGERS_ASK: (u32, u32) = (200, 400);
const NETWORK_ASKS: (u32, u32) = (60, 120);

/// Why a stranger gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NoPlace {
    /// Every link is busy.
    #[error("every place for strangers is taken")]
    Full,
    /// The stranger's network has its share, and all of it is busy.
    #[error("the stranger's network holds its share of places")]
    Network,
    /// The stranger has its share, and all of it is busy.
    #[error("the stranger holds its share of places")]
    Peer,
}

/// Where a link comes from, as far as places of strangers are shared out by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// A public network.
    Network(IpAddr),
    /// An address of the same site.
    Host(IpAddr),
    /// A way.
    Carried,
    /// The same machine, or nobody asks.
    Any,
}

/// The places, shared by the tasks that accept links.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    per_peer: usize,
    /// What all of them may ask, where each network has its share only.
    all: Option<Arc<Requests>>,
    inner: Mutex<Inner>,
    /// Links closed to make room.
    evicted: AtomicU64,
    /// Links refused because no other could be closed.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    taken: BTreeMap<u64, Taken>,
    /// What networks may ask that have links, or have asked a moment ago.
    shares: BTreeMap<Origin, Arc<Requests>>,
}

#[derive(Debug)]
struct Taken {
    peer: PeerId,
    origin: Origin,
    usage: Arc<Usage>,
    link: Weak<dyn Connection>,
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// For strangers, whose networks have their share each.
    pub(crate) fn for_strangers(limit: usize, per_peer: usize) -> Arc<Self> {
        Self::new(limit, per_peer, true)
    }

    /// For those who are known, wherever they come from: many may be at one place, or behind one relay.
    pub(crate) fn for_known(limit: usize, per_peer: usize) -> Arc<Self> {
        Self::new(limit, per_peer, false)
    }

    fn new(limit: usize, per_peer: usize, shared_out: bool) -> Arc<Self> {
        Arc::new(Self {
            limit,
            per_peer,
            all: shared_out.then(|| Arc::new(Requests::new(STRANGERS_ASK.0, STRANGERS_ASK.1))),
            inner: Mutex::default(),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Gives a stranger's link a place, closing the idle link least recently used where there is none.
    ///
    /// # Errors
    /// [`NoPlace`]: all links that would have to give way are in use.
    pub(crate) fn enter(self: &Arc<Self>, link: &Arc<dyn Connection>, usage: &Arc<Usage>) -> Result<Place, NoPlace> {
        let (peer, origin) = (link.peer(), if self.all.is_some() { origin(link.remote()) } else { Origin::Any });
        let mut inner = self.lock();
        let share = inner.share(origin, clock::now());
        let entered = inner.make_room(self.limit, self.per_peer, &peer, origin);
        let victims = match entered {
            Ok(victims) => victims,
            Err(why) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(why);
            }
        };
        let number = inner.next;
        inner.next += 1;
        if let Some(all) = &self.all {
            usage.share(share.iter().chain([all]).cloned().collect());
        }
        inner.taken.insert(number, Taken { peer, origin, usage: Arc::clone(usage), link: Arc::downgrade(link) });
        drop(inner);
        for victim in victims {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            if let Some(link) = victim.upgrade() {
                link.close(CloseReason::Idle.code(), CloseReason::Idle.as_str());
            }
        }
        Ok(Place { places: Arc::clone(self), number })
    }

    /// Links closed to make room, and links refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.evicted.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Places taken now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().taken.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What the links of a network may ask together, where networks are told apart. Who comes again finds what it left.
    fn share(&mut self, origin: Origin, now: Instant) -> Option<Arc<Requests>> {
        if origin == Origin::Any {
            return None;
        }
        // At most what refills in two seconds is kept of those that have gone: as many as handshakes are let in then.
        self.shares.retain(|_, share| Arc::strong_count(share) > 1 || !share.is_whole(now));
        let new = || Arc::new(Requests::new(NETWORK_ASKS.0, NETWORK_ASKS.1));
        Some(Arc::clone(self.shares.entry(origin).or_insert_with(new)))
    }

    /// Takes out those that leave for a newcomer.
    fn make_room(
        &mut self,
        limit: usize,
        per_peer: usize,
        peer: &PeerId,
        origin: Origin,
    ) -> Result<Vec<Weak<dyn Connection>>, NoPlace> {
        // Numbers first, so that nobody leaves for a newcomer that is then refused.
        let mut leaving = Vec::new();
        self.one_leaves(&mut leaving, per_peer, |taken| taken.peer == *peer).map_err(|()| NoPlace::Peer)?;
        let share = match origin {
            Origin::Network(_) => Some(MAX_PER_NETWORK),
            Origin::Host(_) | Origin::Carried => Some(MAX_CARRIED),
            Origin::Any => None,
        };
        if let Some(share) = share {
            self.one_leaves(&mut leaving, share, |taken| taken.origin == origin).map_err(|()| NoPlace::Network)?;
        }
        self.one_leaves(&mut leaving, limit, |_| true).map_err(|()| NoPlace::Full)?;
        Ok(leaving.iter().filter_map(|number| self.taken.remove(number)).map(|taken| taken.link).collect())
    }

    /// Where a group holds all its places, its member idle for longest is noted to leave.
    fn one_leaves(&self, leaving: &mut Vec<u64>, limit: usize, member: impl Fn(&Taken) -> bool) -> Result<(), ()> {
        let group = || self.taken.iter().filter(|(number, taken)| member(taken) && !leaving.contains(number));
        if group().count() < limit {
            return Ok(());
        }
        let idle = group().filter_map(|(number, taken)| Some((taken.usage.idle_since()?, *number)));
        leaving.push(idle.min().ok_or(())?.1);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
    }
}

/// What one owner of addresses can be assumed to hold; those of a site are counted one by one.
fn origin(remote: SocketAddr) -> Origin {
    if is_relayed(remote) {
        return Origin::Carried;
    }
    match remote.ip().to_canonical() {
        ip if ip.is_loopback() => Origin::Any,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Origin::Host(v4.into()),
        IpAddr::V4(v4) => Origin::Network(IpAddr::from((u32::from(v4) & 0xffff_ff00).to_be_bytes())),
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Origin::Host(v6.into()),
        IpAddr::V6(v6) => Origin::Network(IpAddr::from((u128::from(v6) & (u128::MAX << 80)).to_be_bytes())),
    }
}

#[cfg(test)]
mod tests;
