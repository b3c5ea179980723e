// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of the networks' members: `<member>.<network>.pqvpn`, answered on this node's own overlay addresses.
//!
//! ```text
//! views ──► NameTable ──► answer() ◄── UDP and TCP port 53, from this host only
//!                                      ▲
//! host: systemd-resolved (this link, this zone only), or on request a line in /etc/resolv.conf
//! ```
//! Only our zone is answered and only our zone is asked for: everything else is refused, nothing is forwarded, and the
//! node itself never looks up a name of the zone ([`is_ours`]). What is changed on the host is in a journal before it is
//! changed, and taken back at the stop or, after a crash, at the next start (users.md 4).

mod answer;
mod host;
mod serve;
mod side;
mod table;
mod teller;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::config::DnsMode;

pub(crate) use self::side::DnsSide;
pub(crate) use self::table::NameTable;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{answer::fuzz as fuzz_query, host::fuzz_journal};

/// The zone; no such top-level domain exists.
pub const ZONE: &str = "pqvpn";

/// Whether a host name lies in our zone, which nobody can look up before being in the mesh.
#[must_use]
pub fn is_ours(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(ZONE))
}

/// A name as people give it, without the zone and the dot at its end.
#[must_use]
pub fn bare(name: &str) -> &str {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.rsplit_once('.') {
        Some((rest, last)) if last.eq_ignore_ascii_case(ZONE) => rest,
        Some(_) | None => name,
    }
}

/// Takes back what a killed node left in the host's resolver; says what that was.
pub(crate) async fn recover(state_dir: &std::path::Path) -> Result<Option<String>, impl std::fmt::Display + use<>> {
    host::recover(&host::Places::of_this_host(), state_dir).await
}

/// Finds out, for as long as this process lives, whether its network is that of systemd-resolved: a process that has given
/// up its rights cannot look any more.
pub fn look_for_resolver() {
    let _kept = host::is_resolved_s_namespace();
}

/// The file a killed node's line is still in, which the next start takes back whatever its settings say.
#[must_use]
pub fn left_behind(state_dir: &std::path::Path) -> Option<std::path::PathBuf> {
    host::left_behind(state_dir)
}

/// What `dns status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsReport {
    /// As configured.
    pub mode: DnsMode,
    /// How this host comes to know the names.
    pub host: DnsHost,
    /// Where names are answered.
    pub servers: Vec<DnsServer>,
    /// Names that can be looked up, and their addresses; sorted.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// Names of networks that several networks have: their members are found under `<name>-<start of the id>` only.
    pub ambiguous: Vec<String>,
    /// Queries answered with data, with "no such name" or "no such record", and refused (not our zone, malformed), since
    /// the start.
    pub queries: DnsCounts,
    /// Why the host does not know the names, though it should.
    pub trouble: Option<String>,
}

impl DnsReport {
    /// The addresses under a name as people write it, with or without the zone, for `dns query`; `None`: no such name.
    #[must_use]
    pub fn look_up(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let whole = if is_ours(&name) { name } else { format!("{name}.{ZONE}") };
        self.names.iter().find(|(known, _)| *known == whole).map(|(_, addresses)| addresses.as_slice())
    }
}

/// How this host comes to know the names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsHost {
    /// Switched off, or there is no network.
    Nothing,
    /// The names are answered, but nothing on this host asks there: systemd-resolved does not run, and nobody allowed
    /// /etc/resolv.conf to be changed.
    Untouched,
    /// systemd-resolved asks us for our zone.
    Resolved {
        /// On this link.
        interface: String,
    },
    /// A line in this file.
    ResolvConf {
        /// Where it is.
        path: std::path::PathBuf,
    },
}

/// One address where names are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsServer {
    /// Port 53 there.
    pub address: IpAddr,
    /// Why it does not answer, if it does not.
    pub error: Option<String>,
}

/// Queries since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DnsCounts {
    /// With data.
    pub answered: u64,
    /// Names or records there are not.
    pub negative: u64,
    /// Other zones, other kinds of queries, malformed ones.
    pub refused: u64,
    /// Left without an answer: not from this host, not a query, too many at once.
    pub dropped: u64,
}

/// The names, shared by whoever changes them and whoever answers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    table: ArcSwap<NameTable>,
    /// Whose questions are answered: our own overlay addresses.
    own: ArcSwap<Vec<IpAddr>>,
    answered: AtomicU64,
    negative: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl Names {
    /// Starts with these names.
    pub(crate) fn new(table: NameTable) -> Arc<Self> {
        let names = Self::default();
        names.table.store(Arc::new(table));
        Arc::new(names)
    }

    /// Replaces names and own addresses; queries see the one or the other.
    pub(crate) fn replace(&self, table: NameTable, own: Vec<IpAddr>) {
        self.own.store(Arc::new(own));
        self.table.store(Arc::new(table));
    }

    /// The names now.
    pub(crate) fn table(&self) -> Arc<NameTable> {
        self.table.load_full()
    }

    /// Whether questions from there are answered: from this host only, so that no member reads the names of another
    /// network here, and nobody is answered who did not ask.
    fn answers(&self, asker: IpAddr) -> bool {
        let asker = asker.to_canonical();
        asker.is_loopback() || self.own.load().contains(&asker)
    }

    fn count(&self, outcome: answer::Outcome) {
        let counter = match outcome {
            answer::Outcome::Answered => &self.answered,
            answer::Outcome::Negative => &self.negative,
            answer::Outcome::Refused => &self.refused,
            answer::Outcome::Dropped => &self.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> DnsCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DnsCounts {
            answered: of(&self.answered),
            negative: of(&self.negative),
            refused: of(&self.refused),
            dropped: of(&self.dropped),
        }
    }
}

#[cfg(test)]
mod tests;
