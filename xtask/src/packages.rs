// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages that the tests need beyond Rust and a C compiler.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A program, the package that brings it, and what it is for.
const NEEDED: [(&str, &str); 12] = [
    // A daemon whose clock is off is run under its library.
    ("faketime", "faketime"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("conntrack", "conntrack"),
    ("iptables-nft", "iptables"),
    ("tc", "iproute2"),
    ("miniupnpd", "miniupnpd"),
    ("python3", "python3-minimal"),
    // Makes system calls of a daemon fail.
    ("strace", "strace"),
    // Rates the unit, and says which system calls its filter names.
    ("systemd-analyze", "systemd"),
    // libFuzzer is C++.
    ("g++", "g++"),
];

/// Installs what is missing when that is possible; returns the packages that are still missing.
///
/// # Errors
/// apt failed as root.
pub(crate) fn install() -> Result<Vec<&'static str>> {
    let missing = missing();
    if missing.is_empty() || !nix::unistd::geteuid().is_root() || !on_path("apt-get") {
        return Ok(missing);
    }
    println!("installing {}", missing.join(" "));
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    Ok(self::missing())
}

fn missing() -> Vec<&'static str> {
    NEEDED.into_iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| package).collect()
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    if command.status().context("apt-get did not start")?.success() {
        Ok(())
    } else {
        bail!("apt-get {} failed", arguments.join(" "))
    }
}

/// Whether a program is there, also in the administrator's folders that a user's PATH may lack.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(Path::new);
    env::split_paths(&path).chain(extra.map(Path::to_path_buf)).any(|folder| folder.join(program).is_file())
}
