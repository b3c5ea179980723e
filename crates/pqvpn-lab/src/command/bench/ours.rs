// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own tunnel: the `pqvpn` daemon on both hosts, with real files and the control socket, as a user has it.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;
use serde_json::Value;

use super::contender::{Contender, Running};
use crate::command::node::{Node, PATIENCE, PORT};

/// Our tunnel with AES-256-GCM.
pub(super) const AES: &str = "pqvpn-aes";
/// Our tunnel with ChaCha20-Poly1305.
pub(super) const CHACHA: &str = "pqvpn-chacha";

/// Another build of our tunnel, with AES-256-GCM.
pub(super) const OTHER: &str = "pqvpn-other";

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

impl Ours {
    pub(super) const fn new(name: &'static str, program: PathBuf) -> Self {
        Self { name, program }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aead(&self) -> &'static str {
        if self.name == CHACHA { "ChaCha20-Poly1305" } else { "AES-256-GCM" }
    }

    fn version(&self) -> Option<String> {
        super::tools::first_line(&self.program, "--version")
    }

    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        let make = |host: &Host| Node::make("pqvpn-bench", host, self.program.clone());
        let nodes = [make(one)?, make(two)?];
        let ids = [nodes[0].identity()?, nodes[1].identity()?];
        let cipher = self.aead().to_ascii_lowercase();
        nodes[0].configure(&config(&cipher, &ids[1], two))?;
        nodes[1].configure(&config(&cipher, &ids[0], one))?;
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
        let handshake_ms = peer["session"]["handshake_ms"].as_f64();
        Ok(Box::new(Tunnel { target, handshake_ms, daemons, _nodes: nodes }))
    }
}

fn config(cipher: &str, other: &Value, host: &Host) -> String {
    let (id, endpoint) = (&other["peer_id"], format!("{}:{PORT}", host.ipv4));
    format!(
        "[node]\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n[interface]\nname = \"bench0\"\n[crypto]\ncipher = \"{cipher}\"\n\
         [logging]\nlevel = \"warn\"\n[dht]\nenabled = false\n[[peers]]\nid = {id}\nname = \"other\"\nendpoints = [\"{endpoint}\"]\n"
    )
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
