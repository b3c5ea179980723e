// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the host is not as planned, each with what to try.

use std::{io, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use thiserror::Error;

/// Why a change of the host failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The process may not change the network.
    #[error("not allowed to {what}; run as root or give the binary CAP_NET_ADMIN")]
    NotAllowed {
        /// What was tried.
        what: String,
    },
    /// The interface does not exist.
    #[error("there is no interface {name}")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The host has the address already, elsewhere.
    #[error(
        "address {address} is taken: interface {interface} has it; choose another interface.ipv4_pool or remove it there"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        interface: String,
    },
    /// The host routes the prefix already, elsewhere.
    #[error("route {route} is there already, via {interface}; choose another interface.ipv4_pool or remove that route")]
    RouteTaken {
        /// The prefix.
        route: IpNet,
        /// Where it goes.
        interface: String,
    },
    /// None of the addresses can be set.
    #[error("IPv6 is off on this host and the plan has no IPv4 address; set interface.ipv4 = true or enable IPv6")]
    NoFamily,
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The journal cannot be read or written.
    #[error("the journal {} cannot be {what}: {source}", path.display())]
    Journal {
        /// What was tried: "read", "written", ..
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer version wrote the journal; undoing half of what it says would be worse than nothing.
    #[error("the journal {} is of version {version}, this program knows 1; start the newer program once", path.display())]
    JournalVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// Changes of an earlier run are not undone yet.
    #[error("the journal {} names changes that are not undone yet; is another node running on this state directory?", path.display())]
    JournalPending {
        /// The file.
        path: PathBuf,
    },
    /// Some changes could not be undone; the journal keeps them.
    #[error("not undone: {failed}; {} keeps the list for the next start", path.display())]
    Undo {
        /// Each with its reason.
        failed: String,
        /// The journal.
        path: PathBuf,
    },
    /// Applying failed, and so did undoing it.
    #[error("{cause}; and then: {undo}")]
    HalfSet {
        /// Why applying failed.
        cause: Box<Self>,
        /// What is left.
        undo: Box<Self>,
    },
}

impl HostError {
    /// What `what` failed with, privilege told apart.
    pub(super) fn kernel(what: String, source: io::Error) -> Self {
        match source.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => Self::NotAllowed { what },
            _ => Self::Kernel { what, source },
        }
    }

    /// One line that says what to try.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAllowed { .. } => "run as root, or give the program CAP_NET_ADMIN",
            Self::AddressTaken { .. } | Self::RouteTaken { .. } => {
                "look for another network with the same addresses; change interface.ipv4_pool"
            }
            Self::NoFamily => "set interface.ipv4 = true, or enable IPv6",
            Self::Journal { .. } => "free some space, or give a writable directory with `--state DIR`",
            Self::JournalVersion { .. } | Self::JournalPending { .. } => {
                "end the other daemon, or give this one its own `--state DIR`"
            }
            Self::NoInterface { .. } | Self::Kernel { .. } => "start it again; the kernel log may say more",
            Self::Undo { .. } | Self::HalfSet { .. } => "start it again: what is left is undone at the next start",
        }
    }

    pub(super) fn injected() -> Self {
        Self::Kernel { what: "go on".to_owned(), source: io::Error::other("injected fault") }
    }
}
