// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tunnels of others have in common: an address at each end, two processes, an end by signal.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::{IpNet, Ipv4Net};
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::{Host, Interface};

use super::contender::Running;

/// How long starting anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The addresses inside, of the first and second host (RFC 5737).
pub(super) const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
/// Prefix length of the network inside.
pub(super) const PREFIX: u8 = 24;

/// A tunnel of two processes that is up; `_keep` is what must outlive them.
#[derive(Debug)]
pub(super) struct Tunnel<K> {
    pub(super) daemons: [Daemon; 2],
    pub(super) _keep: K,
}

impl<K: std::fmt::Debug> Running for Tunnel<K> {
    fn target(&self) -> IpAddr {
        INSIDE[1].into()
    }

    fn daemons(&self) -> Vec<&Daemon> {
        self.daemons.iter().collect()
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.daemons.iter().for_each(Daemon::kill);
        Ok(())
    }
}

/// Gives the interface a daemon made its address and MTU.
pub(super) fn set_up(host: &Host, interface: &str, inside: Ipv4Addr, mtu: u32) -> anyhow::Result<()> {
    let interface = Interface::find(&host.namespace, interface)?;
    interface.set_mtu(mtu)?;
    interface.add_address(IpNet::V4(Ipv4Net::new_assert(inside, PREFIX)))?;
    Ok(interface.up()?)
}

/// Runs a program that prepares something, to success.
pub(super) fn prepare(host: &Host, command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = process::run(&host.namespace, command, PATIENCE)?;
    anyhow::ensure!(done.status.success(), "{name}: {}{}", done.stdout, done.stderr);
    Ok(())
}

/// What both daemons said, behind an error.
pub(super) fn with_words<T>(result: anyhow::Result<T>, daemons: &[Daemon; 2]) -> anyhow::Result<T> {
    result.with_context(|| {
        let words = daemons.each_ref().map(|daemon| format!("{}{}", daemon.stdout(), daemon.stderr()));
        format!("the daemons said:\n{}\n{}", words[0], words[1])
    })
}
