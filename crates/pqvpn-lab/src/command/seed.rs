// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seed of a run: given, or drawn and told, so that a run can be had again.

use pqvpn_lab::report::Report;

/// `--seed`.
#[derive(Debug, clap::Args)]
pub(super) struct Seed {
    /// Seed of everything random that the lab itself decides [default: drawn, and printed].
    #[arg(long)]
    seed: Option<u64>,
}

impl Seed {
    /// The seed of this run, which the report tells.
    pub(super) fn draw(&self, report: &mut Report) -> u64 {
        // As many bits as JSON readers keep exactly.
        let seed = self.seed.unwrap_or_else(|| rand::random::<u64>() >> 11);
        report.figure("seed", seed);
        seed
    }
}
