// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network of daemons for `join`, `revoke` and `partition`: hosts of a small internet, one daemon each, one network.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::{self, Host};
use serde_json::Value;

use super::bench::tools;
use super::node::{Node, PATIENCE, PORT};

pub(super) mod join;
pub(super) mod partition;
pub(super) mod revoke;
mod stream;

/// Name of the network of every run.
pub(super) const NETWORK: &str = "lab";
/// How long everything said may take to reach everybody, on a machine with many daemons and few cores.
pub(super) const SETTLE: Duration = Duration::from_secs(120);

/// A node with its daemon, while that runs.
pub(super) struct Member {
    pub(super) name: String,
    /// What its configuration has beside its name.
    more: String,
    pub(super) node: Node,
    pub(super) daemon: Option<Daemon>,
}

/// Hosts and the daemons on them.
pub(super) struct Mesh {
    program: PathBuf,
    members: Vec<Member>,
    internet: topology::Internet,
}

/// Time between two looks at daemons, each of which starts a process.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// As [`process::wait_until`], for what only a verb can tell.
pub(super) fn look<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> Result<T, process::ProcessError> {
    process::wait_until(what, limit, || {
        let seen = check();
        if seen.is_none() {
            thread::sleep(LOOK);
        }
        seen
    })
}

/// Progress, for people who wait.
pub(super) fn say(text: &str) {
    // A closed standard error changes nothing.
    _ = writeln!(io::stderr(), "{text}");
}

impl Member {
    /// A node on a host, with a name and whatever `more` there is in its configuration.
    pub(super) fn make(program: &Path, host: &Host, name: &str, more: &str) -> anyhow::Result<Self> {
        let node = Node::make("pqvpn-network", host, program.to_path_buf())?;
        let member = Self { name: name.to_owned(), more: more.to_owned(), node, daemon: None };
        member.configure("")?;
        Ok(member)
    }

    /// Writes its configuration, with `last` at the end; for the next start of its daemon.
    pub(super) fn configure(&self, last: &str) -> anyhow::Result<()> {
        let (name, more) = (&self.name, &self.more);
        self.node.configure(&format!(
            "[node]\nname = \"{name}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n[interface]\nname = \"lab0\"\n\
             [logging]\nlevel = \"warn\"\n{more}{last}"
        ))
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.daemon = Some(self.node.daemon()?);
        Ok(())
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let Some(daemon) = self.daemon.take() else { return Ok(()) };
        let finished = daemon.terminate(PATIENCE)?;
        anyhow::ensure!(finished.status.success(), "{} ended badly: {}", self.name, finished.stderr);
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    pub(super) fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.node.json(arguments)
    }

    pub(super) fn peer_id(&self) -> anyhow::Result<String> {
        Ok(self.node.identity()?["peer_id"].as_str().context("a node has a PeerID")?.to_owned())
    }

    /// Joins by a code, under this node's name.
    pub(super) fn join(&self, code: &str) -> anyhow::Result<Value> {
        self.json(&["join", code, "--name", &self.name])
    }

    /// A new code for so many.
    pub(super) fn invite(&self, uses: usize) -> anyhow::Result<String> {
        let made = self.json(&["invite", "--uses", &uses.to_string()])?;
        Ok(made["code"].as_str().context("an invite has a code")?.to_owned())
    }

    /// Names of the members it sees, itself among them, in order.
    pub(super) fn members(&self) -> anyhow::Result<Vec<String>> {
        let list = self.json(&["members"])?;
        let members = list["members"].as_array().context("a list of members")?;
        let mut names: Vec<String> = members.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// What `net list` says of the network.
    pub(super) fn network(&self) -> anyhow::Result<Value> {
        let list = self.json(&["net", "list"])?;
        list["networks"].get(0).cloned().context("a network")
    }

    pub(super) fn head(&self) -> anyhow::Result<String> {
        Ok(self.network()?["head"].as_str().context("a head")?.to_owned())
    }

    /// Its addresses in the network, IPv6 first.
    pub(super) fn addresses(&self) -> anyhow::Result<Vec<IpAddr>> {
        let network = self.network()?;
        let addresses = network["addresses"].as_array().context("addresses")?;
        addresses.iter().filter_map(Value::as_str).map(|text| Ok(text.parse()?)).collect()
    }

    /// One in-tunnel round trip to a member, by its name.
    pub(super) fn ping(&self, name: &str, wait: Duration) -> anyhow::Result<()> {
        let wait = wait.as_secs_f64().max(0.1).to_string();
        self.node.run_within(&["ping", name, "-c", "1", "-W", &wait], PATIENCE * 2).map(drop)
    }
}

impl Mesh {
    /// An internet of `hosts`, on which a DHT of the run's own starts from the first; no daemon runs yet.
    fn build(hosts: u8, names: impl Fn(usize) -> String) -> anyhow::Result<Self> {
        let program = tools::pqvpn()?;
        let internet = topology::internet(hosts)?;
        let mut members = Vec::new();
        let mut doors = String::new();
        for (index, host) in internet.hosts.iter().enumerate() {
            let more = format!(
                "[bootstrap]\nlan = false\n{doors}[dht]\ndifficulty = 1\nnetwork = \"{}\"\n",
                "1ab0".repeat(16)
            );
            let member = Member::make(&program, host, &names(index), &more)?;
            if index == 0 {
                doors = format!("nodes = [\"pqvpn://{}@{}:{PORT}\"]\n", member.peer_id()?, host.ipv4);
            }
            members.push(member);
        }
        Ok(Self { program, members, internet })
    }

    /// The first node makes the network, and `count` nodes are in it afterwards; gives how long each join took, in s.
    fn found(&mut self, count: usize, create: &[&str]) -> anyhow::Result<Vec<f64>> {
        for member in self.members.iter_mut().take(count) {
            member.start()?;
        }
        say(&format!("{count} daemons run"));
        let founder = &self.members[0];
        founder.json(&[&["net", "create", NETWORK, "--as", &founder.name], create].concat())?;
        let code = founder.invite(count)?;
        let mut times = Vec::new();
        for member in self.members.iter().take(count).skip(1) {
            let start = Instant::now();
            let joined = member.join(&code).with_context(|| format!("{} joins", member.name))?;
            times.push(start.elapsed().as_secs_f64());
            anyhow::ensure!(joined["waiting_for_approval"] == false, "{} was not let in: {joined}", member.name);
        }
        Ok(times)
    }

    /// Everybody whose daemon runs.
    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_running())
    }

    /// Waits until all of `members` hold the same statements and see the same names; gives the names.
    pub(super) fn settle(members: &[&Member], limit: Duration) -> anyhow::Result<Vec<String>> {
        let mut last = String::new();
        let settled = look("all nodes to be equal", limit, || {
            let seen = members.iter().map(|member| Ok((member.head()?, member.members()?)));
            match seen.collect::<anyhow::Result<Vec<_>>>() {
                Ok(seen) if seen.windows(2).all(|pair| pair[0] == pair[1]) => {
                    seen.into_iter().next().map(|seen| seen.1)
                }
                Ok(seen) => {
                    last = seen.iter().map(|(head, names)| format!("{}:{} ", &head[..8], names.len())).collect();
                    None
                }
                Err(error) => {
                    last = format!("{error:#}");
                    None
                }
            }
        });
        settled.with_context(|| format!("last seen: {last}"))
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(Member::stop)
    }
}

/// The value at a quantile of sorted ones, with three decimals.
pub(super) fn quantile(sorted: &[f64], quantile: f64) -> Value {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    // The next one up: a bar on the 95th of a hundred is a promise to the 95th.
    let index = (last as f64 * quantile).ceil() as usize;
    sorted.get(index).map_or(Value::Null, |value| rounded(*value))
}

pub(super) fn rounded(value: f64) -> Value {
    Value::from((value * 1000.0).round() / 1000.0)
}

pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The first few failures, on standard error.
pub(super) fn tell(what: &str, failures: &[String]) {
    for failure in failures.iter().take(5) {
        say(&format!("{what}: {failure}"));
    }
}
