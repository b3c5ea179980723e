// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node changes on the host (addresses, routes, MTU, link state), and how all of it is undone.
//!
//! The order is always the same: look first, write down what is about to change, change it, and on the way out undo
//! it in reverse. The list is on disk before the first change is made, so a node that was killed leaves a journal from
//! which [`recover`] removes everything at the next start. Undoing is idempotent and touches only what is ours: our
//! interface by index, our routes by interface and [`ROUTE_PROTOCOL`].
//!
//! Going from one plan to another is the same in small ([`HostChange::change_to`]): what is new is written down before it
//! is made, and what is old is struck off after it has been undone, so that the journal never names too little.
//!
//! A directly connected subnet wins over what is behind a peer: a route equal to or inside one is left out and reported;
//! a route around one is set, and longest-prefix match keeps the subnet on its own link. Members' own addresses are
//! another matter: nothing on the host wins over those ([`guard`]), and nothing gets to ours but by the tunnel ([`wall`]).
//!
//! All functions talk to the network namespace of the calling thread.

mod again;
mod checks;
mod clean;
mod error;
mod gateway;
mod guard;
mod journal;
mod kernel;
mod side;
pub(crate) mod sources;
#[cfg(test)]
pub(crate) mod tests;
mod transition;
mod wall;
pub(crate) mod watch;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::journal::fuzz as fuzz_journal;
pub use self::{
    clean::{Cleaned, clean},
    error::HostError,
};
pub(crate) use self::{
    gateway::{Gateway, Surroundings, default_gateway, surroundings},
    side::HostSide,
};
use self::{
    journal::{Journal, Loaded},
    kernel::Kernel,
};

/// Marks our routes (`ip route show proto 174`), so that nobody else's are ever removed.
pub const ROUTE_PROTOCOL: u8 = 174;

/// What the host shall look like while the node is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the TUN device; it must exist.
    pub interface: String,
    /// Whether the device is persistent and ours, so that undoing deletes it.
    pub owns_device: bool,
    /// Inner MTU in bytes.
    pub mtu: u32,
    /// Overlay addresses of this node; a prefix shorter than the address is also a route, checked like the others.
    pub addresses: Vec<IpNet>,
    /// Further prefixes that go into the tunnel, like those behind peers.
    pub routes: Vec<PlannedRoute>,
}

/// A prefix that goes into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRoute {
    /// The prefix.
    pub net: IpNet,
    /// The source that packets of this host to it get, one of the plan's addresses; none: the kernel chooses.
    pub source: Option<IpAddr>,
    /// Members' addresses in it have routes of their own, before all others: that somebody else has it is no error.
    pub guarded: bool,
}

impl From<IpNet> for PlannedRoute {
    fn from(net: IpNet) -> Self {
        Self { net, source: None, guarded: false }
    }
}

/// What was found while applying a plan, for `status` and warnings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Routes left out because a directly connected subnet is equal or larger.
    pub skipped: Vec<Overlap>,
    /// Directly connected subnets inside a route that was set: the subnet keeps its addresses.
    pub shadowed: Vec<Overlap>,
    /// Routes of somebody else inside a route that was set: they keep their addresses.
    pub narrower: Vec<Overlap>,
    /// Guarded routes left out because the host leads the very prefix elsewhere.
    pub taken: Vec<Overlap>,
    /// IPv6 is off on this host or interface: IPv6 addresses and routes were left out.
    pub ipv6_missing: bool,
}

impl Report {
    /// Whether a planned route was not set.
    fn leaves_out(&self, net: IpNet) -> bool {
        self.skipped.iter().chain(&self.taken).any(|overlap| overlap.route == net)
    }

    /// Whether an address lies in a subnet that stays where it is connected.
    pub(crate) fn keeps(&self, ip: IpAddr) -> bool {
        self.skipped.iter().chain(&self.shadowed).any(|overlap| overlap.subnet.contains(&ip))
    }
}

/// A wanted route and the connected subnet it meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The route of the plan.
    pub route: IpNet,
    /// The subnet on the host.
    pub subnet: IpNet,
    /// Where the subnet is.
    pub interface: String,
}

/// Something on the host that uses addresses of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConflict {
    /// The prefix in use.
    pub prefix: IpNet,
    /// Interface it is on or routed through; none for a blackhole or the like.
    pub interface: Option<String>,
    /// Whether it is an address of the host or a route.
    pub kind: ConflictKind,
}

/// How a prefix is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// The host has an address in it.
    Address,
    /// The host routes it.
    Route,
}

/// What a killed node had left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What was undone, one line each.
    pub undone: Vec<String>,
    /// The journal was unreadable for this reason and was moved aside; nothing was undone.
    pub unreadable: Option<String>,
    /// The journal was of another boot or namespace, where its changes ended by themselves.
    pub stale: bool,
}

/// One reversible change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Change {
    /// The persistent device is ours.
    Device,
    /// The kernel makes no link-local address, and so sends no router solicitations into the tunnel.
    NoLinkLocal {
        before: u8,
    },
    Mtu {
        before: u32,
        after: u32,
    },
    Address {
        net: IpNet,
    },
    Up,
    Route {
        net: IpNet,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<IpAddr>,
        /// The source of the route of ours that this one replaces.
        #[serde(skip)]
        before: Option<Option<IpAddr>>,
    },
}

/// Changes in force. Dropping it undoes nothing; see [`HostChange::undo`] and [`recover`].
#[derive(Debug)]
#[must_use = "changes stay until they are undone"]
pub struct HostChange {
    state_dir: PathBuf,
    journal: Journal,
    report: Report,
}

impl HostChange {
    /// Brings the host to `plan`; what is as planned already is neither touched nor undone later.
    ///
    /// # Errors
    /// An address or route is taken, the interface is missing, privilege is missing, an earlier journal was not
    /// recovered, or the kernel refused a change. What was changed until then is undone again.
    pub async fn apply(state_dir: &Path, plan: &Plan) -> Result<Self, HostError> {
        Self::apply_until(state_dir, plan, Stop::Never).await
    }

    async fn apply_until(state_dir: &Path, plan: &Plan, stop: Stop) -> Result<Self, HostError> {
        if !matches!(journal::load(state_dir).await?, Loaded::None) {
            return Err(HostError::JournalPending { path: journal::path(state_dir) });
        }
        let kernel = Kernel::open()?;
        let (link, changes, report) = checks::changes(&kernel, plan).await?;
        let journal = Journal::new(link.name, link.index, changes);
        journal.store(state_dir).await?;
        for (done, change) in journal.changes.iter().enumerate() {
            let result = match stop {
                Stop::Fail(at) if at == done => Err(HostError::injected()),
                Stop::Crash(at) if at == done => return Err(HostError::injected()),
                Stop::Never | Stop::Fail(_) | Stop::Crash(_) => kernel.perform(link.index, change).await,
            };
            let Err(error) = result else { continue };
            let mut made = journal.clone();
            made.changes.truncate(done);
            return Err(match revert(&kernel, state_dir, made).await {
                Ok(_) => error,
                Err(left) => HostError::HalfSet { cause: Box::new(error), undo: Box::new(left) },
            });
        }
        tracing::debug!(interface = %journal.interface, changes = journal.changes.len(), "host set up");
        Ok(Self { state_dir: state_dir.to_owned(), journal, report })
    }

    /// What was found on the way.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Undoes every change, newest first, and removes the journal. Whatever is gone already is fine.
    ///
    /// # Errors
    /// The kernel refused; everything else was undone and the journal keeps the rest for [`recover`].
    pub async fn undo(self) -> Result<(), HostError> {
        let kernel = Kernel::open()?;
        revert(&kernel, &self.state_dir, self.journal).await.map(drop)
    }
}

/// Undoes what a killed node left, from its journal in `state_dir`. Call it at start, before the interface is made.
///
/// # Errors
/// The journal cannot be read from disk, was written by a newer version, or the kernel refused to undo something.
/// An unreadable journal is no error: it is moved aside and named in [`Recovered::unreadable`].
pub async fn recover(state_dir: &Path) -> Result<Recovered, HostError> {
    let journal = match journal::load(state_dir).await? {
        Loaded::None => return Ok(Recovered::default()),
        Loaded::Unreadable(why) => {
            let kept = journal::set_aside(state_dir).await?;
            let unreadable = Some(format!("{why}; kept as {}", kept.display()));
            return Ok(Recovered { unreadable, ..Recovered::default() });
        }
        Loaded::Journal(journal) => journal,
    };
    if !journal.is_of_here() {
        journal::remove(state_dir).await?;
        return Ok(Recovered { stale: true, ..Recovered::default() });
    }
    let kernel = Kernel::open()?;
    let undone = revert(&kernel, state_dir, journal).await?;
    Ok(Recovered { undone, ..Recovered::default() })
}

/// What on this host already uses addresses of `pool`, apart from `own_interface`; default routes do not count.
///
/// # Errors
/// The kernel did not answer.
pub async fn pool_conflicts(pool: Ipv4Net, own_interface: Option<&str>) -> Result<Vec<PoolConflict>, HostError> {
    checks::pool_conflicts(&Kernel::open()?, pool, own_interface).await
}

/// The first of `wanted` that nothing on this host uses, apart from `own_interface`, and that overlaps none of `taken`.
///
/// # Errors
/// The kernel did not answer.
pub async fn free_pool(
    own_interface: Option<&str>,
    wanted: &[Ipv4Net],
    taken: &[Ipv4Net],
) -> Result<Option<Ipv4Net>, HostError> {
    let kernel = Kernel::open()?;
    for &pool in wanted {
        let ours = taken.iter().any(|other| other.contains(&pool) || pool.contains(other));
        if !ours && checks::pool_conflicts(&kernel, pool, own_interface).await?.is_empty() {
            return Ok(Some(pool));
        }
    }
    Ok(None)
}

/// Where a test stops an apply.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Never,
    /// The change with this number fails.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests inject faults"))]
    Fail(usize),
    /// The process dies before the change with this number.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests inject faults"))]
    Crash(usize),
}

/// Undoes the changes of `journal`, newest first; what could not be undone stays in the journal on disk.
async fn revert(kernel: &Kernel, state_dir: &Path, mut journal: Journal) -> Result<Vec<String>, HostError> {
    let mut undone = Vec::new();
    let (mut left, mut failed) = (Vec::new(), Vec::new());
    // Without the very device the changes were made on, they went with it.
    let same_device = kernel.link_name(journal.index).await?.is_some_and(|name| name == journal.interface);
    while let Some(change) = journal.changes.pop() {
        if !same_device {
            continue;
        }
        match kernel.revert(journal.index, &change).await {
            Ok(true) => undone.push(change.describe(&journal.interface)),
            Ok(false) => {}
            Err(error) => {
                failed.push(format!("{}: {error}", change.describe(&journal.interface)));
                left.push(change);
            }
        }
    }
    if failed.is_empty() {
        journal::remove(state_dir).await?;
        return Ok(undone);
    }
    left.reverse();
    journal.changes = left;
    journal.store(state_dir).await?;
    Err(HostError::Undo { failed: failed.join("; "), path: journal::path(state_dir) })
}

impl Change {
    fn describe(&self, interface: &str) -> String {
        match self {
            Self::Device => format!("device {interface}"),
            Self::NoLinkLocal { .. } => format!("address generation of {interface}"),
            Self::Mtu { after, .. } => format!("MTU {after} of {interface}"),
            Self::Address { net } => format!("address {net} on {interface}"),
            Self::Up => format!("link state of {interface}"),
            Self::Route { net, .. } => format!("route {net} via {interface}"),
        }
    }
}
