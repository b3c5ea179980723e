// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subcommands, one file each.

use clap::Subcommand;
use pqvpn_lab::netns::Privilege;
use pqvpn_lab::report::Report;

mod bench;
mod check;
mod dht;
mod node;

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Speed of the tunnel beside the bare link and boringtun, all in one run (builds and installs what is missing).
    Bench(bench::Args),
    /// What this machine lets the lab do: namespaces, links between them, impairments.
    Check(check::Args),
    /// Many daemons that know one bootstrap node: does everybody find everybody, how fast, and how quiet are they then?
    Dht(dht::Args),
}

impl Command {
    /// Runs it and returns its report.
    pub(crate) fn run(&self, privilege: Privilege) -> anyhow::Result<Report> {
        match self {
            Self::Bench(args) => bench::run(args),
            Self::Check(args) => check::run(args, privilege),
            Self::Dht(args) => dht::run(args),
        }
    }
}
