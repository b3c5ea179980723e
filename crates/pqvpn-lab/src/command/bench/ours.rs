// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own tunnel: the `pqvpn` daemon on both hosts, with real files and the control socket, as a user has it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::folder::Folder;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::Host;
use serde_json::Value;

use super::contender::Running;

/// Our tunnel with AES-256-GCM.
pub(super) const AES: &str = "pqvpn aes";
/// Our tunnel with ChaCha20-Poly1305.
pub(super) const CHACHA: &str = "pqvpn chacha";

/// How long a daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 41641;

/// Our tunnel with one cipher.
#[derive(Debug)]
pub(super) struct Ours {
    name: &'static str,
    program: PathBuf,
}

/// The tunnel, up.
#[derive(Debug)]
pub(super) struct Tunnel {
    target: IpAddr,
    handshake_ms: Option<f64>,
    daemons: [Daemon; 2],
    _nodes: [Node; 2],
}

/// Files of one end.
#[derive(Debug)]
struct Node {
    dir: Folder,
    host: Host,
    program: PathBuf,
}

impl Ours {
    pub(super) const fn new(name: &'static str, program: PathBuf) -> Self {
        Self { name, program }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn aead(&self) -> &'static str {
        if self.name == AES { "AES-256-GCM" } else { "ChaCha20-Poly1305" }
    }

    pub(super) fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Tunnel> {
        let make = |host: &Host| Node::make(host, self.program.clone());
        let nodes = [make(one)?, make(two)?];
        let ids = [nodes[0].identity()?, nodes[1].identity()?];
        let cipher = self.aead().to_ascii_lowercase();
        nodes[0].configure(&cipher, &ids[1], two)?;
        nodes[1].configure(&cipher, &ids[0], one)?;
        // The dialled one first: a handshake into a closed port is not what is measured here.
        let second = nodes[1].daemon()?;
        let daemons = [nodes[0].daemon()?, second];
        let ping = nodes[0].run(&["ping", "other", "-c", "1", "-W", "10"]);
        ping.with_context(|| {
            let [one, two] = daemons.each_ref().map(Daemon::stderr);
            format!("{}; the daemons said:\n{one}\n{two}", self.name)
        })?;
        let peer = nodes[0].json(&["status"])?["peers"][0].take();
        anyhow::ensure!(peer["session"]["aead"] == self.aead(), "asked for {}, got {peer}", self.aead());
        let addresses = ids[1]["addresses"].as_array().context("a node has addresses")?;
        let mut addresses = addresses.iter().filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
        let target = addresses.find(IpAddr::is_ipv4).context("the node has no IPv4 address")?;
        Ok(Tunnel { target, handshake_ms: peer["session"]["handshake_ms"].as_f64(), daemons, _nodes: nodes })
    }
}

impl Node {
    fn make(host: &Host, program: PathBuf) -> anyhow::Result<Self> {
        let node = Self { dir: Folder::create("pqvpn-bench")?, host: host.clone(), program };
        fs::write(node.file("config.toml"), "[logging]\nlevel = \"warn\"\n")?;
        Ok(node)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn identity(&self) -> anyhow::Result<Value> {
        self.json(&["id"])
    }

    fn configure(&self, cipher: &str, other: &Value, host: &Host) -> anyhow::Result<()> {
        let (id, endpoint) = (&other["peer_id"], format!("{}:{PORT}", host.ipv4));
        let text = format!(
            "[node]\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n[interface]\nname = \"bench0\"\n[crypto]\ncipher = \"{cipher}\"\n\
             [logging]\nlevel = \"warn\"\n[[peers]]\nid = {id}\nname = \"other\"\nendpoints = [\"{endpoint}\"]\n"
        );
        Ok(fs::write(self.file("config.toml"), text)?)
    }

    /// Starts the daemon and waits until it answers.
    fn daemon(&self) -> anyhow::Result<Daemon> {
        let daemon = Daemon::spawn(&self.host.namespace, "pqvpn daemon", self.command(&["daemon"]))?;
        daemon.wait_until("the control socket", PATIENCE, || self.file("sock").exists().then_some(()))?;
        Ok(daemon)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        for (option, file) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "sock")] {
            command.arg(option).arg(self.file(file));
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let finished = process::run(&self.host.namespace, self.command(arguments), PATIENCE)?;
        anyhow::ensure!(finished.status.success(), "pqvpn {}: {}", arguments.join(" "), finished.stderr.trim());
        Ok(finished.stdout)
    }

    fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.run(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("pqvpn {} printed no JSON", arguments.join(" ")))
    }
}

impl Running for Tunnel {
    fn target(&self) -> IpAddr {
        self.target
    }

    fn daemons(&self) -> Vec<&Daemon> {
        self.daemons.iter().collect()
    }

    fn handshake_ms(&self) -> Option<f64> {
        self.handshake_ms
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        for daemon in &self.daemons {
            let finished = daemon.terminate(PATIENCE)?;
            anyhow::ensure!(finished.status.success(), "the daemon ended badly: {}", finished.stderr);
        }
        Ok(())
    }
}
