// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs a bench needs: found, built or installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::geteuid;

/// The version of boringtun-cli that is measured against, so that the ratio means the same everywhere.
const BORINGTUN: &str = "0.7.1";

/// Finds a program in PATH or where cargo installs.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo = env::home_dir().map(|home| home.join(".cargo/bin"));
    env::split_paths(&path).chain(cargo).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Makes sure that iperf3 is there; root on Debian gets it installed.
pub(in crate::command) fn need_iperf3() -> anyhow::Result<()> {
    let why = "iperf3 is not installed (Debian package iperf3)";
    if find("iperf3").is_some() {
        return Ok(());
    }
    anyhow::ensure!(geteuid().is_root() && find("apt-get").is_some(), "{why}");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends", "iperf3"]);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    let installed = quietly(install).context(why);
    if installed.is_ok() && find("iperf3").is_some() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.arg("update");
    quietly(update).context(why)?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends", "iperf3"]);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    quietly(install).context(why)
}

/// The daemon's program: beside this one, and built anew when cargo runs this, so that what is measured is what is
/// in the source tree.
pub(in crate::command) fn pqvpn() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let program = own.with_file_name("pqvpn");
    if let Some(cargo) = env::var_os("CARGO") {
        anyhow::ensure!(!cfg!(debug_assertions), "measuring an unoptimised build says nothing: cargo run --release");
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--package", "pqvpn", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        // Beside this program, wherever that is.
        build.arg("--target-dir").arg(own.ancestors().nth(2).context("this program is not in a target folder")?);
        quietly(build).context("building pqvpn")?;
    }
    anyhow::ensure!(program.is_file(), "there is no pqvpn beside {}; cargo build --release -p pqvpn", own.display());
    Ok(program)
}

/// Gets boringtun-cli from its registry into a folder of the lab's own.
pub(super) fn install_boringtun() -> anyhow::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache"))).context("no home directory")?;
    let root = cache.join("pqvpn-lab").join(format!("boringtun-cli-{BORINGTUN}"));
    let program = root.join("bin/boringtun-cli");
    if !program.is_file() {
        let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        install.args(["install", "boringtun-cli", "--locked", "--version", BORINGTUN, "--root"]).arg(&root);
        // Outside the workspace: its toolchain file and settings are not meant for others.
        install.current_dir(Path::new("/"));
        quietly(install).context("boringtun-cli is not installed and cannot be")?;
    }
    Ok(program)
}

/// Runs a command to success; what it says goes to standard error.
fn quietly(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().with_context(|| name.clone())?;
    anyhow::ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
