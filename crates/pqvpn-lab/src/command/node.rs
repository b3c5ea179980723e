// SPDX-License-Identifier: MIT OR Apache-2.0
//! One `pqvpn` on a host of the lab, with real files and the control socket, as a user has it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::folder::Folder;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::Host;
use serde_json::Value;

/// The port daemons of the lab listen on.
pub(super) const PORT: u16 = 41641;
/// How long a daemon may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node's files.
#[derive(Debug)]
pub(super) struct Node {
    dir: Folder,
    pub(super) host: Host,
    /// What the daemon's environment has more.
    pub(super) environment: Vec<(String, String)>,
    program: PathBuf,
}

impl Node {
    /// Its files go into a folder of its own, named after the `purpose`.
    pub(super) fn make(purpose: &str, host: &Host, program: PathBuf) -> anyhow::Result<Self> {
        let node = Self { dir: Folder::create(purpose)?, host: host.clone(), environment: Vec::new(), program };
        fs::write(node.file("config.toml"), "[logging]\nlevel = \"warn\"\n")?;
        Ok(node)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `pqvpn id` says.
    pub(super) fn identity(&self) -> anyhow::Result<Value> {
        self.json(&["id"])
    }

    /// Writes its config.
    pub(super) fn configure(&self, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.file("config.toml"), text)?)
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn daemon(&self) -> anyhow::Result<Daemon> {
        let mut command = self.command(&["daemon"]);
        command.envs(self.environment.iter().cloned());
        let daemon = Daemon::spawn(&self.host.namespace, "pqvpn daemon", command)?;
        daemon.wait_until("the control socket", PATIENCE, || self.file("sock").exists().then_some(()))?;
        Ok(daemon)
    }

    /// Keeps a copy of what the stopped daemon remembers.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        copy(&self.file("state"), &self.file("saved"))
    }

    /// Brings back what was kept, as an old backup would; the daemon is stopped.
    pub(super) fn restore(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.file("state"))?;
        copy(&self.file("saved"), &self.file("state"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        for (option, file) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "sock")] {
            command.arg(option).arg(self.file(file));
        }
        command
    }

    /// Runs one verb and returns what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_within(arguments, PATIENCE)
    }

    /// As [`Self::run`], with a deadline of its own.
    pub(super) fn run_within(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<String> {
        let finished = process::run(&self.host.namespace, self.command(arguments), limit)?;
        anyhow::ensure!(finished.status.success(), "pqvpn {}: {}", arguments.join(" "), finished.stderr.trim());
        Ok(finished.stdout)
    }

    /// Runs one verb with `--json`.
    pub(super) fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.run(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("pqvpn {} printed no JSON", arguments.join(" ")))
    }
}

/// Copies a folder with its files and folders; modes of files are kept, folders are the owner's alone.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
