// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever takes part: the bare link, our tunnel by cipher and without one, other tunnels found on this machine.

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;

use super::{ceiling, nebula, openvpn, ours, tools, wireguard};

/// Name of the bare link.
pub(super) const RAW: &str = "raw";

/// One who takes part; started anew for each of its turns.
pub(super) trait Contender: Debug {
    /// What it is called in the report.
    fn name(&self) -> &'static str;

    /// Its packet encryption.
    fn aead(&self) -> &'static str;

    /// What it says about its version, if it says anything.
    fn version(&self) -> Option<String> {
        None
    }

    /// Starts it between two hosts and waits until packets pass.
    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>>;
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

/// Where programs are, beside the usual places.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places<'p> {
    /// Folder of peers' programs.
    pub(super) peers: Option<&'p Path>,
    /// Another build of our daemon.
    pub(super) other: Option<&'p Path>,
}

/// Those of `names` ("ours" is both ciphers), or with no names everybody who can be had here: ourselves, boringtun,
/// and of the others those whose program is found.
///
/// # Errors
/// A name nobody has, or a program that was asked for and is not there.
pub(super) fn all(names: &[String], places: Places<'_>) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    if let Some(unknown) = names.iter().find(|name| *name != "ours" && !NAMES.contains(&name.as_str())) {
        anyhow::bail!("nobody is called {unknown:?}; there are: ours, {}", NAMES.join(", "));
    }
    let is_ours = |name: &str| name == ours::AES || name == ours::CHACHA;
    let asked = |name: &str| {
        let given = name == ours::OTHER && places.other.is_some();
        given || names.iter().any(|asked| asked == name || asked == "ours" && is_ours(name))
    };
    let mut all = Vec::new();
    for name in NAMES.into_iter().filter(|name| names.is_empty() || asked(name)) {
        match make(name, places)? {
            Some(contender) => all.push(contender),
            None => anyhow::ensure!(names.is_empty(), "the program of {name} is not there; bench --install"),
        }
    }
    Ok(all)
}

/// Everybody, in the order of their turns.
const NAMES: [&str; 10] = [
    RAW,
    ceiling::NAME,
    ours::AES,
    ours::CHACHA,
    ours::OTHER,
    super::RIVAL,
    wireguard::GOTATUN,
    wireguard::WIREGUARD_GO,
    openvpn::NAME,
    nebula::NAME,
];

fn make(name: &'static str, places: Places<'_>) -> anyhow::Result<Option<Box<dyn Contender>>> {
    let found = |program| tools::find_peer(program, places.peers);
    Ok(match name {
        RAW => Some(Box::new(Bare)),
        ceiling::NAME => Some(Box::new(ceiling::Ceiling::build()?)),
        ours::AES | ours::CHACHA => Some(Box::new(ours::Ours::new(name, tools::pqvpn()?))),
        ours::OTHER => places.other.map(|program| Box::new(ours::Ours::new(name, program.to_owned())) as _),
        super::RIVAL => {
            // The one a bar is about is worth a build. Without a registry its bar is missed, and the rest measured.
            let install = || tools::install_boringtun().inspect_err(|error| super::say(&format!("{error:#}"))).ok();
            let program = found("boringtun-cli").or_else(install);
            program.map(|program| Box::new(wireguard::WireGuard::boringtun(program)) as _)
        }
        wireguard::GOTATUN => found("gotatun").map(|program| Box::new(wireguard::WireGuard::gotatun(program)) as _),
        wireguard::WIREGUARD_GO => {
            found("wireguard-go").map(|program| Box::new(wireguard::WireGuard::wireguard_go(program)) as _)
        }
        openvpn::NAME => found("openvpn").map(|program| Box::new(openvpn::OpenVpn::new(program)) as _),
        _ => found("nebula")
            .zip(found("nebula-cert"))
            .map(|(program, cert)| Box::new(nebula::Nebula::new(program, cert)) as _),
    })
}

/// The bare link: always up.
#[derive(Debug)]
struct Bare;

#[derive(Debug)]
struct Link(IpAddr);

impl Contender for Bare {
    fn name(&self) -> &'static str {
        RAW
    }

    fn aead(&self) -> &'static str {
        "none"
    }

    fn start(&self, _: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Link(two.ipv4.into())))
    }
}

impl Running for Link {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_and_told_the_known_ones() {
        let error = all(&["wiregard-go".to_owned()], Places::default()).unwrap_err().to_string();
        assert!(error.contains("wiregard-go") && error.contains("wireguard-go"), "{error}");
    }

    #[test]
    fn a_name_asked_for_brings_that_contender_alone() {
        let all = all(&[RAW.to_owned()], Places::default()).unwrap();
        assert_eq!(all.iter().map(|contender| contender.name()).collect::<Vec<_>>(), [RAW]);
    }
}
