// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own ceiling: the data plane between two hosts without encryption. No daemon can do this; it is an example of
//! the data plane's crate, with a feature that nothing else is built with.

use std::path::PathBuf;
use std::process::Command;

use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;

use super::contender::{Contender, Running};
use super::tools;
use super::tunnel::{self, INSIDE, PATIENCE, Tunnel};

/// Its name in the report.
pub(super) const NAME: &str = "ceiling";

const PORT: u16 = 41642;
/// As in the daemon.
const MTU: u32 = 1420;

/// The bare data plane.
#[derive(Debug)]
pub(super) struct Ceiling {
    program: PathBuf,
}

impl Ceiling {
    pub(super) fn build() -> anyhow::Result<Self> {
        Ok(Self { program: tools::bare_plane()? })
    }

    fn daemon(&self, host: &Host, other: &Host, end: &str) -> anyhow::Result<Daemon> {
        let mut command = Command::new(&self.program);
        command.args(["none", end, &format!("0.0.0.0:{PORT}"), &format!("{}:{PORT}", other.ipv4)]);
        Ok(Daemon::spawn(&host.namespace, NAME, command)?)
    }
}

impl Contender for Ceiling {
    fn name(&self) -> &'static str {
        NAME
    }

    fn aead(&self) -> &'static str {
        "none"
    }

    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        let daemons = [self.daemon(one, two, "one")?, self.daemon(two, one, "two")?];
        for ((host, daemon), inside) in [one, two].into_iter().zip(&daemons).zip(INSIDE) {
            daemon.wait_for_line("ready", PATIENCE)?;
            tunnel::set_up(host, "plane0", inside, MTU)?;
        }
        Ok(Box::new(Tunnel { daemons, _keep: () }))
    }
}
