// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places for the links of strangers: few, spread over networks, and the one least recently used leaves first.
//!
//! Pinned peers need no place, so that strangers can never be in their way.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::control::CloseReason;
use thiserror::Error;

use super::usage::Usage;
use crate::link::Connection;

/// Links strangers may hold with us at once.
pub(crate) const MAX_STRANGERS: usize = 128;
/// Those of one public network (IPv4 /24, IPv6 /48).
const MAX_PER_NETWORK: usize = 8;
/// Those of one stranger: one is usual, a second crosses or replaces it.
pub(crate) const MAX_PER_STRANGER: usize = 2;

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

/// The places, shared by the tasks that accept links.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    per_peer: usize,
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
}

#[derive(Debug)]
struct Taken {
    peer: PeerId,
    /// The public network it comes from.
    network: Option<IpAddr>,
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
    pub(crate) fn new(limit: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            per_peer,
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
        let (peer, network) = (link.peer(), public_network(link.remote().ip()));
        let mut inner = self.lock();
        let entered = inner.make_room(self.limit, self.per_peer, &peer, network);
        let victims = match entered {
            Ok(victims) => victims,
            Err(why) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(why);
            }
        };
        let number = inner.next;
        inner.next += 1;
        inner.taken.insert(number, Taken { peer, network, usage: Arc::clone(usage), link: Arc::downgrade(link) });
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
    /// Takes out those that leave for a newcomer.
    fn make_room(
        &mut self,
        limit: usize,
        per_peer: usize,
        peer: &PeerId,
        network: Option<IpAddr>,
    ) -> Result<Vec<Weak<dyn Connection>>, NoPlace> {
        // Numbers first, so that nobody leaves for a newcomer that is then refused.
        let mut leaving = Vec::new();
        self.one_leaves(&mut leaving, per_peer, |taken| taken.peer == *peer).map_err(|()| NoPlace::Peer)?;
        if network.is_some() {
            let of_network = |taken: &Taken| taken.network == network;
            self.one_leaves(&mut leaving, MAX_PER_NETWORK, of_network).map_err(|()| NoPlace::Network)?;
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

/// What one owner of public addresses can be assumed to hold; addresses of a site are not counted together.
fn public_network(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        IpAddr::V4(v4) if v4.is_private() || v4.is_loopback() || v4.is_link_local() => None,
        IpAddr::V4(v4) => Some(IpAddr::from((u32::from(v4) & 0xffff_ff00).to_be_bytes())),
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() => None,
        IpAddr::V6(v6) => Some(IpAddr::from((u128::from(v6) & (u128::MAX << 80)).to_be_bytes())),
    }
}

#[cfg(test)]
mod tests;
