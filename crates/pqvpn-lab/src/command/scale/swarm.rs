// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process with all the peers, and its orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::folder::Folder;
use pqvpn_lab::netns::Namespace;
use pqvpn_lab::process::Daemon;
use serde::Deserialize;
use serde_json::Value;

/// How long it may take to make all the keys.
const KEYS: Duration = Duration::from_secs(120);

/// One of the peers.
#[derive(Debug, Deserialize)]
pub(in crate::command) struct Member {
    pub(in crate::command) id: String,
    /// Its address in the underlay.
    pub(in crate::command) at: SocketAddrV4,
    /// Its address in the overlay.
    pub(in crate::command) address: Ipv6Addr,
}

/// The peers' process. It is killed in the end: what it has to tell the hub would be measured nowhere.
pub(in crate::command) struct Swarm {
    orders: UnixStream,
    answers: BufReader<UnixStream>,
    _daemon: Daemon,
    _folder: Folder,
}

impl Swarm {
    /// Starts the process; no peer runs yet.
    pub(in crate::command) fn spawn(
        namespace: &Namespace,
        program: PathBuf,
        peers: u16,
        first: IpAddr,
        port: u16,
    ) -> anyhow::Result<Self> {
        let folder = Folder::create("pqvpn-swarm")?;
        let socket = folder.path().join("sock");
        let mut command = Command::new(program);
        command.args([peers.to_string(), first.to_string(), port.to_string()]).arg(&socket);
        let daemon = Daemon::spawn(namespace, "swarm", command)?;
        let orders = daemon.wait_until("the peers' keys", KEYS, || UnixStream::connect(&socket).ok())?;
        Ok(Self { answers: BufReader::new(orders.try_clone()?), orders, _daemon: daemon, _folder: folder })
    }

    /// Gives an order and waits for the answer.
    fn ask(&mut self, order: &str) -> anyhow::Result<String> {
        self.orders.write_all(format!("{order}\n").as_bytes())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        anyhow::ensure!(answer.ends_with('\n'), "the peers' process has ended: {}", self._daemon.stderr());
        answer.pop();
        Ok(answer)
    }

    /// Who they are.
    pub(in crate::command) fn who(&mut self) -> anyhow::Result<Vec<Member>> {
        Ok(serde_json::from_str(&self.ask("who")?)?)
    }

    /// Starts all peers.
    pub(in crate::command) fn start(&mut self, hub: &str, at: &str) -> anyhow::Result<()> {
        let answer = self.ask(&format!("start {hub} {at}"))?;
        anyhow::ensure!(answer == "started", "the peers did not start: {answer}");
        Ok(())
    }

    /// Lets a thread for each peer count what comes to its address at another port, outside of any tunnel.
    pub(in crate::command) fn count_bare(&mut self, port: u16) -> anyhow::Result<()> {
        let answer = self.ask(&format!("bare {port}"))?;
        anyhow::ensure!(answer == "counting", "the peers' process does not count: {answer}");
        Ok(())
    }

    /// A round trip of every peer with the hub, all at once.
    pub(in crate::command) fn ping(&mut self, patience: Duration) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&format!("ping {}", patience.as_secs()))?)?)
    }

    /// A round trip of `count` peers with the hub from the `from`-th on, each `gap` after the one before.
    pub(in crate::command) fn ping_some(
        &mut self,
        patience: Duration,
        from: u16,
        count: u16,
        gap: Duration,
    ) -> anyhow::Result<Value> {
        let order = format!("ping {} {from} {count} {}", patience.as_secs(), gap.as_millis());
        Ok(serde_json::from_str(&self.ask(&order)?)?)
    }

    /// `count` peers from the `from`-th on leave, come again and make a round trip with the hub.
    pub(in crate::command) fn churn(&mut self, patience: Duration, from: u16, count: u16) -> anyhow::Result<Value> {
        let order = format!("churn {} {from} {count}", patience.as_secs());
        Ok(serde_json::from_str(&self.ask(&order)?)?)
    }

    /// As many peers step the ratchet of their session; gives how many did.
    pub(in crate::command) fn rekey(&mut self, from: u16, count: u16) -> anyhow::Result<u64> {
        self.ask(&format!("rekey {from} {count}"))?.parse().context("the peers' process counts")
    }

    /// Bytes of datagrams that reached the peers.
    pub(in crate::command) fn bytes(&mut self) -> anyhow::Result<u64> {
        self.ask("bytes")?.parse().context("the peers' process counts")
    }
}
