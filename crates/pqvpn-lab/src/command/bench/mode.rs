// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the link between the two hosts does for those who send on it.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::process;
use pqvpn_lab::topology::{self, Host};

/// How long ethtool may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mode of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Mode {
    /// The veth pair as the kernel makes it: a super-packet of 64 kB crosses uncut.
    Default,
    /// Packets cross one by one and are merged on arrival: nearest to a network card.
    Gro,
    /// Packets cross one by one: the worst case.
    Off,
}

impl Mode {
    /// All three.
    pub(super) const ALL: [Self; 3] = [Self::Default, Self::Gro, Self::Off];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Gro => "gro",
            Self::Off => "off",
        }
    }

    /// Two hosts on a link of this mode.
    pub(super) fn pair(self) -> anyhow::Result<(Host, Host)> {
        let (one, two) = topology::pair("one", "two")?;
        let gro = match self {
            Self::Default => return Ok((one, two)),
            Self::Gro => "on",
            Self::Off => "off",
        };
        for host in [&one, &two] {
            let mut ethtool = Command::new("ethtool");
            ethtool.args(["-K", host.interface.name(), "tso", "off", "gso", "off", "gro", gro]);
            ethtool.args(["tx-udp-segmentation", "off"]);
            let done = process::run(&host.namespace, ethtool, PATIENCE).context("Debian package ethtool")?;
            anyhow::ensure!(done.status.success(), "ethtool: {}", done.stderr.trim());
        }
        Ok((one, two))
    }
}
