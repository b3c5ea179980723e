// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which lengths are worth a probe, and what is told of those that pass.

use std::net::SocketAddr;

use pqvpn_dataplane::PathSize;
use pqvpn_packet::header::OVERHEAD;

use super::{BASE, FLOOR, Mtu, Phase};

/// Lengths that are tried at once: they end where tunnels and links of the internet do, over IPv4 and IPv6.
const RUNGS: [u16; 13] = [1472, 1452, 1424, 1400, 1372, 1352, 1252, 1232, 1200, 1100, 972, 952, 750];
/// A relay header: what must be saved where it was not expected.
const LEAD: u16 = 8;
/// Where the search for the exact length ends.
pub(super) const NEAR: u16 = 24;

impl Mtu {
    /// Lengths above the one in use that may pass; for another attempt also those that failed before.
    pub(super) fn rungs(&self) -> Vec<u16> {
        let least = if self.phase == Phase::Ladder && self.proven == 0 { FLOOR } else { self.carry() };
        let below = if self.phase == Phase::Raise { self.target + 1 } else { self.bad };
        let doubted = self.doubted.map_or(self.target, |(len, _)| len);
        let ends = [self.target, self.target.saturating_sub(LEAD), doubted];
        let mut rungs: Vec<u16> = RUNGS.into_iter().chain(ends).collect();
        let mut long = self.target;
        while long > RUNGS[0] {
            rungs.push(long);
            long = long / 4 * 3;
        }
        rungs.retain(|&len| len > least && len < below && len <= self.target);
        rungs.sort_unstable_by(|a, b| b.cmp(a));
        rungs.dedup();
        rungs
    }

    /// The next length worth a verdict.
    pub(super) fn next_up(&self) -> Option<u16> {
        let (carry, bad) = (self.carry(), self.bad);
        let rung = self.rungs().into_iter().filter(|&len| len > carry).min();
        rung.or_else(|| (bad.saturating_sub(carry) > NEAR).then(|| carry + (bad - carry) / 2))
            .filter(|&len| len > carry && len <= self.target)
    }

    /// What the data plane is to be told, if that has changed. `own` is the MTU of the interface.
    pub(crate) fn poll_size(&mut self, own: u16) -> Option<PathSize> {
        self.remote?;
        let carry = self.carry();
        let inner = carry.saturating_sub(OVERHEAD as u16);
        // While it is sought nobody is told a length that he would keep for minutes.
        let settled = matches!(self.phase, Phase::Idle | Phase::Confirm | Phase::Raise) && self.proven > 0;
        let advise = if settled && inner < own { inner } else { u16::MAX };
        // An interface of the user's own size says nothing of the path.
        let size = PathSize { carry, advise, narrow: carry < BASE.min(self.target) };
        (self.told.replace(size) != Some(size)).then_some(size)
    }

    /// Longest inner packet that goes whole.
    pub(crate) fn inner(&self) -> Option<u16> {
        self.remote.map(|_| self.carry().saturating_sub(OVERHEAD as u16))
    }

    /// Where the path leads that is searched.
    pub(crate) const fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// What the data plane was told last of a path that is narrow, to be told again.
    pub(crate) fn narrow(&self) -> Option<PathSize> {
        self.told.filter(|size| size.narrow)
    }

    /// Holes that were found.
    pub(crate) const fn holes(&self) -> u64 {
        self.holes
    }
}
