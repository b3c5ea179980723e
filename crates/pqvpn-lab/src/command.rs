// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subcommands, one file each.

use clap::Subcommand;
use pqvpn_lab::netns::Privilege;
use pqvpn_lab::report::Report;

mod check;

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What this machine lets the lab do: namespaces, links between them, impairments.
    Check(check::Args),
}

impl Command {
    /// Runs it and returns its report.
    pub(crate) fn run(&self, privilege: Privilege) -> anyhow::Result<Report> {
        match self {
            Self::Check(args) => check::run(args, privilege),
        }
    }
}
