// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's mesh: hosts on a switch, one daemon each, every node pinned at every other.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use pqvpn_api::client::Client;
use pqvpn_crypto::identity::{Identity, IdentitySeed};
use pqvpn_lab::{
    folder::Folder,
    process::Daemon,
    topology::{self, Host, Switch},
};
use pqvpn_node::{config::DEFAULT_PORT, overlay::Overlay, store::ensure_private_dir};

use crate::identity;

/// How long a daemon may take to answer at its socket, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running mesh; dropping it kills and removes everything.
pub(super) struct Mesh {
    pub(super) nodes: Vec<Node>,
    /// When the first daemon was started.
    pub(super) started: Instant,
    _switch: Switch,
    _files: Folder,
}

/// One node of the mesh.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) host: Host,
    /// Overlay address, IPv6 first.
    pub(super) address: IpAddr,
    daemon: Daemon,
}

/// What a node is made of, before it runs.
struct Draft {
    name: String,
    peer_id: String,
    host: Host,
    folder: PathBuf,
}

impl Mesh {
    pub(super) fn build(count: u8) -> Result<Self> {
        let files = Folder::create("pqvpn-demo")?;
        let names: Vec<String> = (1..=count).map(|number| format!("node{number}")).collect();
        let (switch, hosts) = topology::lan(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let drafts = names.into_iter().zip(hosts).map(|(name, host)| Draft::make(&files, name, host));
        let drafts = drafts.collect::<Result<Vec<_>>>()?;
        for draft in &drafts {
            fs::write(draft.folder.join("config.toml"), draft.config(&drafts)).context("writing a config")?;
        }
        let started = Instant::now();
        let nodes = drafts.into_iter().map(Draft::start).collect::<Result<Vec<_>>>()?;
        for node in &nodes {
            node.daemon.wait_until("the daemon answering", PATIENCE, || node.client.socket().exists().then_some(()))?;
        }
        Ok(Self { nodes, started, _switch: switch, _files: files })
    }

    /// Ends the daemons as a service manager would, and waits for each.
    pub(super) fn take_down(self) -> Result<()> {
        for node in &self.nodes {
            let finished = node.daemon.terminate(PATIENCE)?;
            anyhow::ensure!(finished.status.success(), "{} ended badly: {}", node.name, finished.stderr);
        }
        Ok(())
    }
}

impl Draft {
    fn make(files: &Folder, name: String, host: Host) -> Result<Self> {
        let folder = files.path().join(&name);
        ensure_private_dir(&folder)?;
        let seed = IdentitySeed::generate()?;
        let peer_id = Identity::from_seed(&seed)?.peer_id().to_string();
        identity::keystore(&folder).create(&seed, None)?;
        Ok(Self { name, peer_id, host, folder })
    }

    /// The config a user would write: this node's name, and where the others are.
    fn config(&self, all: &[Self]) -> String {
        let mut text = format!("[node]\nname = {:?}\n\n[logging]\nlevel = \"warn\"\n", self.name);
        for peer in all.iter().filter(|peer| peer.peer_id != self.peer_id) {
            let endpoint = format!("{}:{DEFAULT_PORT}", peer.host.ipv4);
            // Writing into a String does not fail.
            _ = write!(
                text,
                "\n[[peers]]\nid = {:?}\nname = {:?}\nendpoints = [{endpoint:?}]\n",
                peer.peer_id, peer.name
            );
        }
        text
    }

    fn start(self) -> Result<Node> {
        let Self { name, peer_id, host, folder } = self;
        let config = folder.join("config.toml");
        let socket = folder.join("pqvpn.sock");
        let mut command = Command::new(env::current_exe().context("finding this program")?);
        command.arg("daemon").arg("--config").arg(&config).arg("--state").arg(&folder).arg("--socket").arg(&socket);
        let daemon = Daemon::spawn(&host.namespace, &name, command)?;
        let loaded = pqvpn_node::config::Config::load(&config)?;
        let address = Overlay::plan(&loaded, peer_id.parse()?).own.into_iter().next().context("no overlay address")?;
        Ok(Node { name, client: Client::new(socket), host, address, daemon })
    }
}
