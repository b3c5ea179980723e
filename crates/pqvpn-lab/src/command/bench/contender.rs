// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever takes part: the bare link, our tunnel by cipher, WireGuard in user space.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;

use super::{ours, tools, wireguard};

/// Name of the bare link.
pub(super) const RAW: &str = "raw veth";

/// One who takes part; started anew for each of its turns.
#[derive(Debug)]
pub(super) enum Contender {
    /// The bare link.
    Raw,
    /// Our tunnel.
    Ours(ours::Ours),
    /// A WireGuard of user space.
    WireGuard(wireguard::WireGuard),
}

impl Contender {
    /// Everybody wanted who can be had here.
    pub(super) fn all(wanted: &impl Fn(&Self) -> bool) -> anyhow::Result<Vec<Self>> {
        let mut all = vec![Self::Raw];
        let pqvpn = tools::pqvpn()?;
        all.extend([ours::AES, ours::CHACHA].map(|name| Self::Ours(ours::Ours::new(name, pqvpn.clone()))));
        all.push(Self::WireGuard(wireguard::WireGuard::boringtun(tools::find("boringtun-cli").unwrap_or_default())));
        all.extend(tools::find("gotatun").map(wireguard::WireGuard::gotatun).map(Self::WireGuard));
        all.extend(tools::find("wireguard-go").map(wireguard::WireGuard::wireguard_go).map(Self::WireGuard));
        all.retain(wanted);
        for contender in &mut all {
            if let Self::WireGuard(wireguard) = contender
                && !wireguard.is_installed()
            {
                wireguard.install()?;
            }
        }
        Ok(all)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Raw => RAW,
            Self::Ours(ours) => ours.name(),
            Self::WireGuard(wireguard) => wireguard.name(),
        }
    }

    pub(super) fn aead(&self) -> &'static str {
        match self {
            Self::Raw => "none",
            Self::Ours(ours) => ours.aead(),
            Self::WireGuard(_) => "ChaCha20-Poly1305",
        }
    }

    /// Starts it between two hosts and waits until packets pass.
    pub(super) fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        Ok(match self {
            Self::Raw => Box::new(Bare(two.ipv4.into())),
            Self::Ours(ours) => Box::new(ours.start(one, two)?),
            Self::WireGuard(wireguard) => Box::new(wireguard.start(one, two)?),
        })
    }
}

/// One that is up.
pub(super) trait Running: Debug {
    /// Address of the second host inside the tunnel.
    fn target(&self) -> IpAddr;

    /// The processes that carry the packets.
    fn daemons(&self) -> Vec<&Daemon>;

    /// How long its handshake took, if it says so.
    fn handshake_ms(&self) -> Option<f64> {
        None
    }

    /// Ends it.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;

    /// CPU time of both ends so far; `None` where the kernel does it all.
    fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        let mut sum = None;
        for daemon in self.daemons() {
            *sum.get_or_insert(Duration::ZERO) += daemon.usage()?.cpu;
        }
        Ok(sum)
    }

    /// Most resident memory of either end in MB.
    fn peak_rss_mb(&self) -> anyhow::Result<Option<f64>> {
        let mut most = None;
        for daemon in self.daemons() {
            most = most.max(Some(daemon.usage()?.peak_rss));
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        Ok(most.map(|bytes| bytes as f64 / 1e6))
    }
}

/// The bare link: always up.
#[derive(Debug)]
struct Bare(IpAddr);

impl Running for Bare {
    fn target(&self) -> IpAddr {
        self.0
    }

    fn daemons(&self) -> Vec<&Daemon> {
        Vec::new()
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
