// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many strangers a carrier's server has at a time, and how fast they come: pure, time is an argument.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Connections at a time, in all and from one source.
pub(super) const MAX_ALL: usize = 1024;
pub(super) const MAX_EACH: usize = 64;
/// And from one IPv6 /48, which is what a customer has.
const MAX_SITE: usize = 128;
/// New ones from one source: so many at once, then one in every such time.
const BURST: u32 = 32;
const EVERY: Duration = Duration::from_millis(200);
/// Sources remembered.
const MAX_SOURCES: usize = 4096;

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many in all.
    All,
    /// There are too many sources to remember another.
    Sources,
    /// There are too many from there.
    Each,
    /// They come too fast from there.
    Rate,
}

/// The books of it.
#[derive(Debug, Default)]
pub(super) struct Limits {
    sources: HashMap<IpAddr, Source>,
    /// Open ones of an IPv6 /48.
    sites: HashMap<u128, usize>,
    all: usize,
}

#[derive(Debug)]
struct Source {
    open: usize,
    /// When all of the burst is allowed again.
    busy_until: Instant,
}

impl Limits {
    /// Lets one more in, who leaves by [`Self::leave`].
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn enter(&mut self, now: Instant, from: IpAddr) -> Result<(), Refused> {
        if self.all >= MAX_ALL {
            return Err(Refused::All);
        }
        let source = prefix(from);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, source| source.open > 0 || source.busy_until > now);
            if self.sources.len() >= MAX_SOURCES {
                return Err(Refused::Sources);
            }
        }
        let site = site(from);
        if site.is_some_and(|site| self.sites.get(&site).is_some_and(|open| *open >= MAX_SITE)) {
            return Err(Refused::Each);
        }
        let source = self.sources.entry(source).or_insert(Source { open: 0, busy_until: now });
        if source.open >= MAX_EACH {
            return Err(Refused::Each);
        }
        if source.busy_until > now + EVERY * (BURST - 1) {
            return Err(Refused::Rate);
        }
        source.busy_until = source.busy_until.max(now) + EVERY;
        source.open += 1;
        if let Some(site) = site {
            *self.sites.entry(site).or_default() += 1;
        }
        self.all += 1;
        Ok(())
    }

    /// One who was let in has gone.
    pub(super) fn leave(&mut self, from: IpAddr) {
        if let Some(source) = self.sources.get_mut(&prefix(from)) {
            source.open = source.open.saturating_sub(1);
        }
        if let Some(site) = site(from)
            && let Some(open) = self.sites.get_mut(&site)
        {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.sites.remove(&site);
            }
        }
        self.all = self.all.saturating_sub(1);
    }

    /// How many are in.
    #[cfg(test)]
    pub(super) const fn open(&self) -> usize {
        self.all
    }
}

/// What one attacker can be assumed to own: an IPv4 address, an IPv6 /64.
fn prefix(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

/// The IPv6 /48 of an address.
fn site(from: IpAddr) -> Option<u128> {
    match from.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6.to_bits() >> 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn one_source_has_its_places_and_its_rate() {
        let (mut limits, mut now) = (Limits::default(), Instant::now());
        let burst = (0..BURST + 9).filter(|_| limits.enter(now, v4(1)).is_ok()).count();
        assert_eq!(burst, BURST as usize);
        assert_eq!(limits.enter(now, v4(1)), Err(Refused::Rate));
        assert_eq!(limits.enter(now, v4(2)), Ok(()), "nobody else suffers");
        for _ in burst..MAX_EACH {
            now += EVERY;
            assert_eq!(limits.enter(now, v4(1)), Ok(()));
        }
        now += EVERY * 99;
        assert_eq!(limits.enter(now, v4(1)), Err(Refused::Each));
        limits.leave(v4(1));
        assert_eq!(limits.enter(now, v4(1)), Ok(()));
    }

    #[test]
    fn all_together_are_bounded_and_so_is_the_memory() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let entered = (0..5000).filter(|n| limits.enter(now, v4(*n)).is_ok()).count();
        assert_eq!((entered, limits.open()), (MAX_ALL, MAX_ALL));
        (0..5000).for_each(|n| limits.leave(v4(n)));
        for n in 0..50_000 {
            if limits.enter(now, v4(n)).is_ok() {
                limits.leave(v4(n));
            }
        }
        assert!(limits.sources.len() <= MAX_SOURCES);
        assert_eq!(limits.enter(now + EVERY, v4(60_000)), Ok(()), "who has left makes room");
    }

    #[test]
    fn a_whole_ipv6_site_has_its_bound_too() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let host = |net: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, net, 0, 0, 0, 1));
        assert_eq!((0..1000).filter(|net| limits.enter(now, host(*net)).is_ok()).count(), MAX_SITE);
        assert_eq!(limits.enter(now, host(2000)), Err(Refused::Each));
        (0..MAX_SITE as u16).for_each(|net| limits.leave(host(net)));
        assert!(limits.sites.is_empty() && limits.enter(now, host(2000)).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let host = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n));
        assert_eq!((0..100).filter(|n| limits.enter(now, host(*n)).is_ok()).count(), BURST as usize);
    }
}
