// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs a bench needs: found, built or installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::geteuid;

/// The version of boringtun-cli that is measured against, so that the ratio means the same everywhere.
const BORINGTUN: &str = "0.7.1";
/// The same of gotatun-cli.
const GOTATUN: &str = "0.10.2";

/// Finds a program in PATH or where cargo installs.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo = env::home_dir().map(|home| home.join(".cargo/bin"));
    env::split_paths(&path).chain(cargo).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Finds a peer's program: in the folder given, where [`install_peers`] puts it, or as [`find`] does.
pub(super) fn find_peer(program: &str, dir: Option<&Path>) -> Option<PathBuf> {
    let own = peers_dir().ok().map(|dir| dir.join("bin"));
    let mut dirs = dir.map(Path::to_path_buf).into_iter().chain(own);
    dirs.find_map(|dir| Some(dir.join(program)).filter(|file| file.is_file())).or_else(|| find(program))
}

/// The first line a program prints when asked for its version.
pub(super) fn first_line(program: &Path, option: &str) -> Option<String> {
    let printed = Command::new(program).arg(option).stdin(Stdio::null()).output().ok()?;
    let text = if printed.stdout.is_empty() { printed.stderr } else { printed.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(80).collect())
}

/// Makes sure that iperf3 is there; root on Debian gets it installed.
pub(in crate::command) fn need_iperf3() -> anyhow::Result<()> {
    if find("iperf3").is_some() {
        return Ok(());
    }
    apt(&["iperf3"]).context("iperf3 is not installed (Debian package iperf3)")
}

/// Installs Debian packages, with the lists as they are and else with new ones; only root can.
fn apt(packages: &[&str]) -> anyhow::Result<()> {
    anyhow::ensure!(geteuid().is_root() && find("apt-get").is_some(), "only root on Debian can install packages");
    let install = || {
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        quietly(install)
    };
    if install().is_ok() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.arg("update");
    quietly(update)?;
    install()
}

/// Gets the peers that are missing: from Debian, and by cargo into a folder of the lab's own. Nebula is measured where
/// its programs are found, and not installed.
pub(super) fn install_peers(dir: Option<&Path>) -> anyhow::Result<()> {
    let from_debian = [("openvpn", "openvpn"), ("wireguard-go", "wireguard-go"), ("openssl", "openssl")];
    let mut missing = vec!["ethtool"];
    missing.retain(|program| find(program).is_none());
    missing.extend(from_debian.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| package));
    if !missing.is_empty() {
        apt(&missing)?;
    }
    for (program, version, name) in [("boringtun-cli", BORINGTUN, "boringtun-cli"), ("gotatun", GOTATUN, "gotatun-cli")]
    {
        if find_peer(program, dir).is_none() {
            cargo_install(name, version)?;
        }
    }
    Ok(())
}

/// The daemon's program: beside this one, and built anew when cargo runs this, so that what is measured is what is
/// in the source tree.
pub(in crate::command) fn pqvpn() -> anyhow::Result<PathBuf> {
    built("pqvpn", &["--package", "pqvpn"])
}

/// The data plane with nothing around it, an example of its crate.
pub(super) fn bare_plane() -> anyhow::Result<PathBuf> {
    built("examples/plane", &["--package", "pqvpn-dataplane", "--example", "plane"])
}

/// Many nodes in one process, an example of the node's crate.
pub(in crate::command) fn swarm() -> anyhow::Result<PathBuf> {
    built("examples/swarm", &["--package", "pqvpn-node", "--example", "swarm"])
}

/// Whoever sends what nobody wants, an example of the node's crate.
pub(in crate::command) fn flooder() -> anyhow::Result<PathBuf> {
    built("examples/flood", &["--package", "pqvpn-node", "--example", "flood"])
}

/// A program of this workspace at `path` beside this one, built anew when cargo runs this.
fn built(path: &str, what: &[&str]) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let program = own.with_file_name(path);
    if let Some(cargo) = env::var_os("CARGO") {
        anyhow::ensure!(!cfg!(debug_assertions), "measuring an unoptimised build says nothing: cargo run --release");
        let mut build = Command::new(cargo);
        build.args(["build", "--release"]).args(what).arg("--manifest-path");
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        // Beside this program, wherever that is.
        build.arg("--target-dir").arg(own.ancestors().nth(2).context("this program is not in a target folder")?);
        quietly(build).with_context(|| format!("building {path}"))?;
    }
    let help = || format!("there is no {path} beside {}; cargo build --release {}", own.display(), what.join(" "));
    anyhow::ensure!(program.is_file(), help());
    Ok(program)
}

/// Gets boringtun-cli from its registry.
pub(super) fn install_boringtun() -> anyhow::Result<PathBuf> {
    cargo_install("boringtun-cli", BORINGTUN)?;
    Ok(peers_dir()?.join("bin/boringtun-cli"))
}

/// Builds a program of the registry into a folder of the lab's own.
fn cargo_install(name: &str, version: &str) -> anyhow::Result<()> {
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install.args(["install", name, "--locked", "--version", version, "--root"]).arg(peers_dir()?);
    // Outside the workspace: its toolchain file and settings are not meant for others.
    install.current_dir(Path::new("/"));
    quietly(install).with_context(|| format!("{name} is not installed and cannot be"))
}

fn peers_dir() -> anyhow::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache"))).context("no home directory")?;
    Ok(cache.join("pqvpn-lab/peers"))
}

/// Runs a command to success; what it says goes to standard error.
fn quietly(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().with_context(|| name.clone())?;
    anyhow::ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
