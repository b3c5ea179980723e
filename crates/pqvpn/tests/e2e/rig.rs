// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node under test: its namespace, its files, its daemon, and how to ask it things.

use std::{
    env, fs,
    fs::OpenOptions,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pqvpn_api::{
    client::Client,
    error::ApiError,
    model::{Peer, PeerState, Ping, Status},
};
use pqvpn_lab::{
    netns::Namespace,
    process::{Daemon, Finished, run, wait_until},
    topology::{Host, pair},
};
use tempfile::TempDir;

/// UDP port of every daemon; each has a host of its own.
pub(crate) const PORT: u16 = 41641;
/// Longer than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Name of every daemon's interface.
pub(crate) const TUN: &str = "pqvpn0";

/// Whether the tests can run here; says why not.
pub(crate) fn usable() -> bool {
    let reason = match (Namespace::create("probe"), OpenOptions::new().read(true).write(true).open("/dev/net/tun")) {
        (Ok(_), Ok(_)) => return true,
        (Err(error), _) => error.to_string(),
        (_, Err(error)) => format!("/dev/net/tun: {error}"),
    };
    eprintln!("SKIP: {reason} (try root, or `unshare --user --map-root-user --mount` before the command)");
    false
}

/// Whether a program is installed; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists());
    if !found {
        eprintln!("SKIP: {program} is not installed");
    }
    found
}

/// The daemon under test.
pub(crate) fn binary() -> PathBuf {
    env::var_os("PQVPN_BIN").map_or_else(|| env!("CARGO_BIN_EXE_pqvpn").into(), PathBuf::from)
}

/// How one node knows another.
#[derive(Debug, Clone)]
pub(crate) struct PeerLine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) endpoint: Option<SocketAddr>,
}

/// A node: made, but its daemon not started.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) id: String,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) dir: TempDir,
    /// What the daemon's environment has besides, like a clock that is off.
    pub(crate) environment: Vec<(String, String)>,
    daemon: Option<Daemon>,
}

impl Node {
    /// Makes the node's directory and identity.
    pub(crate) fn new(namespace: &Namespace, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Self {
            name: name.to_owned(),
            namespace: namespace.clone(),
            id: String::new(),
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
            dir,
            environment: Vec::new(),
            daemon: None,
        };
        node.configure(&[], "");
        let made = node.cli(&["id", "--json"]);
        assert!(made.status.success(), "{}", made.stderr);
        let id: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
        node.id = id["peer_id"].as_str().unwrap().to_owned();
        for address in id["addresses"].as_array().unwrap() {
            match address.as_str().unwrap().parse().unwrap() {
                IpAddr::V4(v4) => node.v4 = v4,
                IpAddr::V6(v6) => node.v6 = v6,
            }
        }
        node
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn as_peer(&self, endpoint: Option<SocketAddr>) -> PeerLine {
        PeerLine { id: self.id.clone(), name: self.name.clone(), endpoint }
    }

    /// Writes the configuration; `more` is TOML put before the peers. Without a DHT: where each packet on the wire is
    /// counted, nobody looks for anybody. Discovery has tests of its own.
    pub(crate) fn configure(&self, peers: &[PeerLine], more: &str) {
        let mut text = format!(
            "[node]\nname = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n[interface]\nname = \"{TUN}\"\n\
             [dht]\nenabled = false\n{more}\n",
            self.name
        );
        for PeerLine { id, name, endpoint } in peers {
            let endpoints = endpoint.map(|endpoint| format!("\"{endpoint}\"")).unwrap_or_default();
            text += &format!("[[peers]]\nid = \"{id}\"\nname = \"{name}\"\nendpoints = [{endpoints}]\n");
        }
        self.write_config(&text);
    }

    pub(crate) fn write_config(&self, text: &str) {
        let path = self.file("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A run of the binary as this node.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments);
        for (option, file) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "sock")] {
            command.arg(option).arg(self.file(file));
        }
        for name in ["PQVPN_CONFIG", "PQVPN_STATE", "PQVPN_SOCKET"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary to its end in the node's namespace.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Finished {
        run(&self.namespace, self.command(arguments), LIMIT).unwrap()
    }

    /// Starts the daemon and does not wait.
    pub(crate) fn start(&mut self) {
        let name = format!("daemon {}", self.name);
        let mut command = self.command(&["daemon", "--log-level", "debug"]);
        command.envs(self.environment.iter().cloned());
        self.daemon = Some(Daemon::spawn(&self.namespace, &name, command).unwrap());
    }

    /// Starts a daemon whose key is in memory only, and waits until it carries traffic.
    pub(crate) fn start_ephemeral(&mut self) {
        let name = format!("daemon {}", self.name);
        let command = self.command(&["daemon", "--ephemeral", "--log-level", "debug"]);
        self.daemon = Some(Daemon::spawn(&self.namespace, &name, command).unwrap());
        self.wait("being ready", || self.daemon().stderr().contains("ready").then_some(()));
    }

    /// Starts the daemon and waits until it carries traffic.
    pub(crate) fn start_up(&mut self) {
        self.start();
        self.wait("being ready", || self.daemon().stderr().contains("ready").then_some(()));
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Waits until `check` gives something; says what the daemon said when it does not.
    pub(crate) fn wait<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        let waited = self.daemon().wait_until(what, LIMIT, check);
        waited.unwrap_or_else(|error| panic!("{} {error}\n{}", self.name, tail(&self.daemon().stderr())))
    }

    /// Asks the daemon to end and checks that it ended well.
    pub(crate) fn stop(&mut self) -> String {
        let daemon = self.daemon.take().unwrap();
        let finished = daemon.terminate(LIMIT).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        finished.stderr
    }

    /// Kills the daemon as a crash would.
    pub(crate) fn crash(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::SIGKILL).unwrap();
        daemon.wait(LIMIT).unwrap();
    }

    /// Asks the daemon by its control socket.
    pub(crate) fn ask<T>(&self, work: impl AsyncFnOnce(Client) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(Client::new(self.file("sock"))))
    }

    pub(crate) fn status(&self) -> Status {
        self.ask(async |client| client.status().await).unwrap()
    }

    /// The node's view of a peer.
    pub(crate) fn peer(&self, peer: &Self) -> Peer {
        self.status().peers.into_iter().find(|entry| entry.peer_id == peer.id).unwrap()
    }

    pub(crate) fn epoch(&self, peer: &Self) -> Option<u32> {
        self.peer(peer).session.map(|session| session.epoch)
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.status().drops.get(reason).copied().unwrap_or(0)
    }

    pub(crate) fn ping(&self, peer: &Self) -> Result<Ping, ApiError> {
        self.ask(async |client| client.ping(&peer.id, LIMIT / 2).await)
    }

    pub(crate) fn rekey(&self, peer: &Self) -> Result<(), ApiError> {
        self.ask(async |client| client.rekey(&peer.id).await.map(drop))
    }

    /// Waits until a ping is answered, and until this end shows the peer as verified.
    pub(crate) fn meet(&self, peer: &Self) {
        let ping = self.ping(peer);
        assert!(ping.is_ok(), "{ping:?}\n{}\n{}", tail(&self.daemon().stderr()), tail(&peer.daemon().stderr()));
        self.wait("a verified peer", || (self.peer(peer).state == PeerState::Verified).then_some(()));
        // Its packet threads answer before its control side has seen that the session is confirmed.
        peer.wait("a session", || {
            let peers = peer.status().peers;
            peers.into_iter().find(|entry| entry.peer_id == self.id)?.session.map(drop)
        });
    }

    /// How many sessions the daemon says it made.
    pub(crate) fn sessions_made(&self) -> usize {
        self.daemon().stderr().lines().filter(|line| line.contains("session up")).count()
    }
}

/// The end of a log, for a failed assertion.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Two nodes on a wire that know each other by the underlay addresses of one family.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) host_a: Host,
    pub(crate) host_b: Host,
}

/// The IP version of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outer {
    V4,
    V6,
}

impl Outer {
    pub(crate) fn endpoint(self, host: &Host) -> SocketAddr {
        let ip = match self {
            Self::V4 => host.ipv4.into(),
            Self::V6 => host.ipv6.into(),
        };
        SocketAddr::new(ip, PORT)
    }
}

impl Pair {
    /// Makes and configures both; starts neither.
    pub(crate) fn new(outer: Outer) -> Self {
        let (host_a, host_b) = pair("a", "b").unwrap();
        let (a, b) = (Node::new(&host_a.namespace, "a"), Node::new(&host_b.namespace, "b"));
        a.configure(&[b.as_peer(Some(outer.endpoint(&host_b)))], "");
        b.configure(&[a.as_peer(Some(outer.endpoint(&host_a)))], "");
        Self { a, b, host_a, host_b }
    }

    /// Makes both, starts both, and lets them meet.
    pub(crate) fn met(outer: Outer) -> Self {
        let mut pair = Self::new(outer);
        pair.a.start();
        pair.b.start_up();
        pair.a.wait("being ready", || pair.a.daemon().stderr().contains("ready").then_some(()));
        pair.a.meet(&pair.b);
        pair
    }

    pub(crate) fn both(&self) -> [(&Node, &Node); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }
}

/// Polls until `check` gives something, with the deadline of every wait here.
pub(crate) fn poll<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    wait_until(what, LIMIT, check).unwrap_or_else(|error| panic!("{error}"))
}

/// Milliseconds since `start`, for a report.
pub(crate) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
