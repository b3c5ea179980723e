// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often somebody may ask, and how often an address named by others may be dialled.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::Request;

use crate::{
    Now,
    address::{Class, Subnet, class_of},
    counters::Attack,
};

pub(crate) mod generations;

use generations::Generations;

/// A token bucket: `rate` tokens a second, at most `burst` of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens at the start, and the most there can be.
    pub burst: f64,
    /// Tokens that come back each second.
    pub per_second: f64,
}

/// The fill of one token bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    pub(crate) const fn full(rate: &Rate, now: Duration) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Fills up to now; how long until `cost` tokens are there. A cost above the burst counts as the burst.
    pub(crate) fn wait(&mut self, rate: &Rate, now: Duration, cost: f64) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.at = self.at.max(now);
        let missing = cost.min(rate.burst) - self.tokens;
        if missing > 0.0 {
            Duration::try_from_secs_f64(missing / rate.per_second).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        }
    }

    /// Takes tokens that [`Bucket::wait`] found to be there.
    pub(crate) fn take(&mut self, rate: &Rate, cost: f64) {
        self.tokens -= cost.min(rate.burst);
    }
}

/// Bounds of a [`RateLimiter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitConfig {
    /// For each PeerID. A lookup by another node costs this one a few requests.
    pub peer: Rate,
    /// For each /24 (/48) together, so that fresh PeerIDs are no help; a private address is counted alone.
    pub subnet: Rate,
    /// Most PeerIDs, and most subnets, remembered.
    pub remembered: usize,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            peer: Rate { burst: 60.0, per_second: 10.0 },
            subnet: Rate { burst: 200.0, per_second: 40.0 },
            remembered: 8192,
        }
    }
}

/// What a request costs its sender: by what it makes this node do, check or keep.
#[must_use]
pub const fn cost(request: &Request) -> f64 {
    match request {
        Request::Ping | Request::FindNode { .. } | Request::FindValue { .. } | Request::Beat { .. } => 1.0,
        Request::Exchange => 2.0,
        // Up to four signatures to check, and everybody is told.
        Request::Announce(_) => 8.0,
        // A signature to check and up to 8 KiB to keep; an answer of up to 32 KiB; something new.
        Request::Store { .. } | Request::Facts { .. } | _ => 4.0,
    }
}

/// Too many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, {} ms to wait", retry.as_millis())]
pub struct Limited {
    /// When the same request would pass.
    pub retry: Duration,
    /// [`Attack::RatePeer`] or [`Attack::RateSubnet`].
    pub attack: Attack,
}

impl Limited {
    /// What to count.
    #[must_use]
    pub const fn attack(&self) -> Attack {
        self.attack
    }

    /// When the same request would pass.
    #[must_use]
    pub const fn retry(&self) -> Duration {
        self.retry
    }

    /// [`Limited::retry`] for a Busy answer, in ms, at least 1.
    #[must_use]
    pub fn retry_ms(&self) -> u32 {
        u32::try_from(self.retry.as_millis()).unwrap_or(u32::MAX).max(1)
    }
}

/// Token buckets for each peer and for each subnet, bounded in number: the longest unused are forgotten.
#[derive(Debug)]
pub struct RateLimiter {
    config: LimitConfig,
    peers: Generations<PeerId, Bucket>,
    subnets: Generations<Subnet, Bucket>,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self::new(LimitConfig::default())
    }
}

impl RateLimiter {
    /// Nobody has asked yet; nothing is allocated before somebody does.
    #[must_use]
    pub fn new(config: LimitConfig) -> Self {
        Self { peers: Generations::new(config.remembered), subnets: Generations::new(config.remembered), config }
    }

    /// Charges a request of `cost` (see [`cost`]) to the peer and to the subnet it comes from.
    ///
    /// # Errors
    /// [`Limited`]: neither was charged.
    pub fn check(&mut self, now: Now, peer: &PeerId, from: IpAddr, cost: f64) -> Result<(), Limited> {
        let (peer_rate, subnet_rate) = (self.config.peer, self.config.subnet);
        let peer = self.peers.entry(*peer, || Bucket::full(&peer_rate, now.mono));
        let retry = peer.wait(&peer_rate, now.mono, cost);
        if !retry.is_zero() {
            return Err(Limited { retry, attack: Attack::RatePeer });
        }
        let subnet = self.subnets.entry(Subnet::billed(from), || Bucket::full(&subnet_rate, now.mono));
        let retry = subnet.wait(&subnet_rate, now.mono, cost);
        if !retry.is_zero() {
            return Err(Limited { retry, attack: Attack::RateSubnet });
        }
        peer.take(&peer_rate, cost);
        subnet.take(&subnet_rate, cost);
        Ok(())
    }

    /// PeerIDs and subnets forgotten for want of room since the last call ([`Attack::TableForgot`]).
    pub fn take_forgotten(&mut self) -> u64 {
        self.peers.take_forgotten() + self.subnets.take_forgotten()
    }
}

/// Time until an address may be dialled again on another's word (dht.md).
pub const DIAL_PAUSE: Duration = Duration::from_secs(60);
/// The same for who was met there: our own memory leads there, and a mended network is found again soon.
const KNOWN_PAUSE: Duration = Duration::from_secs(15);
/// Dials of one public IP address, whatever the port: many nodes may stand behind it, but it may be a victim as well.
const DIALS_PER_HOST: Rate = Rate { burst: 8.0, per_second: 8.0 / 60.0 };
/// Of those, the ones left to whoever was met at the host: made-up names and ports do not use them up.
const DIALS_OF_MET: f64 = 2.0;
/// Addresses remembered. Whoever wants one forgotten sooner must have this node dial as many others within a minute.
const DIALS_REMEMBERED: usize = 8192;

/// Keeps this node from being used to send packets to a victim: dials on another's word are spaced out.
///
/// All names at one address share its dials, or a thousand made up for one victim were a thousand dials. So that they
/// take nothing from who is really there, such a dial is made to whoever answers: any of them finds it, and what rests
/// after that are the other names ([`Self::met`]).
#[derive(Debug)]
pub struct DialLimiter {
    addresses: Generations<SocketAddr, Dials>,
    /// Who was met where.
    known: Generations<SocketAddr, PeerId>,
    hosts: Generations<IpAddr, Bucket>,
}

/// The last dials of an address.
#[derive(Debug, Clone, Copy, Default)]
struct Dials {
    /// By whatever name, if nobody has answered since.
    unanswered: Option<Duration>,
    /// By the name of somebody who had not been met there.
    unknown: Option<Duration>,
}

impl Default for DialLimiter {
    fn default() -> Self {
        let (addresses, known) = (Generations::new(DIALS_REMEMBERED), Generations::new(DIALS_REMEMBERED));
        Self { addresses, known, hosts: Generations::new(DIALS_REMEMBERED) }
    }
}

impl DialLimiter {
    /// Whether the address may be dialled now to find `peer`; if so, it counts as dialled. Refusals are
    /// [`Attack::DialLimit`].
    pub fn allow(&mut self, now: Now, peer: &PeerId, address: SocketAddr) -> bool {
        let (address, now, is_met) = (canonical(address), now.mono, self.is_met(peer, address));
        let rests = |since: Option<Duration>, pause| since.is_some_and(|since| now < since.saturating_add(pause));
        let dials = self.addresses.get(&address).copied().unwrap_or_default();
        let rests = if is_met {
            rests(dials.unanswered, KNOWN_PAUSE)
        } else {
            rests(dials.unanswered, DIAL_PAUSE) || rests(dials.unknown, DIAL_PAUSE)
        };
        if rests || !self.charge(now, address.ip(), is_met) {
            return false;
        }
        let unknown = if is_met { dials.unknown } else { Some(now) };
        *self.addresses.entry(address, Dials::default) = Dials { unanswered: Some(now), unknown };
        true
    }

    /// Whether the peer was the last to be met at the address.
    #[must_use]
    pub fn is_met(&self, peer: &PeerId, address: SocketAddr) -> bool {
        self.known.get(&canonical(address)) == Some(peer)
    }

    fn charge(&mut self, now: Duration, host: IpAddr, is_met: bool) -> bool {
        if class_of(host) != Class::Public {
            return true;
        }
        let bucket = self.hosts.entry(host, || Bucket::full(&DIALS_PER_HOST, now));
        let left = if is_met { 0.0 } else { DIALS_OF_MET };
        let allowed = bucket.wait(&DIALS_PER_HOST, now, 1.0 + left).is_zero();
        if allowed {
            bucket.take(&DIALS_PER_HOST, 1.0);
        }
        allowed
    }

    /// A dial of the address met `peer`, whomever it was meant for: nobody else was bothered, so its pause ends for that
    /// peer. Without this a node whose links are few could not look anything up twice in a minute. Other names go on resting.
    pub fn met(&mut self, peer: PeerId, address: SocketAddr) {
        let address = canonical(address);
        self.answered(address);
        *self.known.entry(address, || peer) = peer;
    }

    /// A dial of the address by the name of `peer` met somebody who is another and did not say who. Somebody is there, so
    /// its pause ends as in [`Self::met`], and who was met there is found no more: its name rests with the other names, or
    /// who named it would keep away whoever took its place.
    pub fn met_another(&mut self, peer: &PeerId, address: SocketAddr) {
        let address = canonical(address);
        self.answered(address);
        if self.is_met(peer, address) {
            self.known.remove(&address);
        }
    }

    fn answered(&mut self, address: SocketAddr) {
        if let Some(dials) = self.addresses.get(&address).copied() {
            *self.addresses.entry(address, Dials::default) = Dials { unanswered: None, ..dials };
        }
    }

    /// Addresses forgotten for want of room since the last call ([`Attack::TableForgot`]).
    pub fn take_forgotten(&mut self) -> u64 {
        self.addresses.take_forgotten() + self.known.take_forgotten() + self.hosts.take_forgotten()
    }
}

/// IPv4 inside IPv6 is IPv4.
const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
