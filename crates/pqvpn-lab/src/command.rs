// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subcommands, one file each.

use clap::Subcommand;
use pqvpn_lab::netns::Privilege;
use pqvpn_lab::report::Report;

mod bench;
mod check;
mod dht;
mod nat_kinds;
mod network;
mod node;
mod seed;

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Speed of the tunnel beside the bare link and boringtun, all in one run (builds and installs what is missing).
    Bench(bench::Args),
    /// What this machine lets the lab do: namespaces, links between them, impairments.
    Check(check::Args),
    /// Many daemons that know one bootstrap node: does everybody find everybody, how fast, and how quiet are they then?
    Dht(dht::Args),
    /// Two machines that know nothing, many daemons by one code, and more: how long does joining take?
    Join(network::join::Args),
    /// What each kind of NAT router of the lab does, by plain sockets, and how often port guessing gets in.
    NatKinds(nat_kinds::Args),
    /// A network cut in two that goes on in both halves, and heals: is it one again, and who has which address?
    Partition(network::partition::Args),
    /// A member that sends without pause is revoked: when does its last packet arrive, and does anybody take it back?
    Revoke(network::revoke::Args),
}

impl Command {
    /// Runs it and returns its report.
    pub(crate) fn run(&self, privilege: Privilege) -> anyhow::Result<Report> {
        match self {
            Self::Bench(args) => bench::run(args),
            Self::Check(args) => check::run(args, privilege),
            Self::Dht(args) => dht::run(args),
            Self::Join(args) => network::join::run(args),
            Self::NatKinds(args) => nat_kinds::run(args),
            Self::Partition(args) => network::partition::run(args),
            Self::Revoke(args) => network::revoke::run(args),
        }
    }
}
