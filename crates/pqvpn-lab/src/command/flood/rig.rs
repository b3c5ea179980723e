// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hosts, daemons and peers of a flood.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use pqvpn_lab::folder::Folder;
use pqvpn_lab::process::Daemon;
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{self, Host, Interface, Switch};
use serde_json::Value;

use super::group::Group;
use super::phase::Phase;
use super::sniff;
use crate::command::bench::{iperf::Course, tools};
use crate::command::node::{Node, PATIENCE, PORT};
use crate::command::scale::swarm::{Member, Swarm};

/// Where the crowd lives.
const CROWD: &str = "172.20.0.1/16";
/// Where the stranger lives.
const STRANGER: &str = "172.22.0.1/15";
/// The interface of each daemon.
pub(super) const INTERFACE: &str = "flood0";
/// How long a newcomer may take: as long as a daemon tries before it gives up for the first time.
pub(super) const NEWCOMER: Duration = Duration::from_secs(10);
/// Sessions without use end after 180 s, of which a phase takes some before it is known who came.
const SURELY_KEPT: Duration = Duration::from_secs(150);

/// Everything that runs.
pub(in crate::command) struct Rig {
    pub(in crate::command) hub: Node,
    pub(in crate::command) daemon: Daemon,
    pub(in crate::command) peer: Node,
    _peer_daemon: Daemon,
    pub(in crate::command) swarm: Swarm,
    /// How many of the crowd have come.
    came: u16,
    /// When each was to have come.
    arrivals: Vec<Instant>,
    flooder: std::path::PathBuf,
    stranger: Host,
    hub_id: String,
    /// The hub's address in the overlay.
    inside: IpAddr,
    folder: Folder,
    /// Of the hub's daemon, where its memory is limited.
    group: Option<Group>,
    _switch: Switch,
}

impl Rig {
    /// `more` is the end of the hub's configuration but its peers.
    pub(in crate::command) fn build(crowd: u16, more: &str, memory: Option<u64>) -> anyhow::Result<Self> {
        let (program, swarm, flooder) = (tools::pqvpn()?, tools::swarm()?, tools::flooder()?);
        let (switch, hosts) = topology::lan(&["hub", "peer", "crowd", "stranger"])?;
        let [hub, peer, far, stranger] = <[Host; 4]>::try_from(hosts).map_err(|_| anyhow::anyhow!("four hosts"))?;
        for (host, net) in [(&far, CROWD), (&stranger, STRANGER)] {
            let net: IpNet = net.parse()?;
            Interface::find(&host.namespace, "lo")?.add_address(net)?;
            topology::add_route(&hub.namespace, net.trunc(), host.ipv4.into())?;
        }
        // Who sends the bulk and who sends the flood take from each other, not from who is attacked.
        for host in [&peer, &stranger] {
            pin(host)?;
        }
        let first: IpNet = CROWD.parse()?;
        let mut swarm = Swarm::spawn(&far.namespace, swarm, crowd, first.addr(), PORT)?;
        let members = swarm.who()?;
        let make = |host: &Host| Node::make("pqvpn-flood", host, program.clone());
        let (hub, peer) = (make(&hub)?, make(&peer)?);
        let [hub_id, peer_id] = [&hub, &peer].map(|node| node.identity().and_then(|id| id_of(&id)));
        let (hub_id, peer_id) = (hub_id?, peer_id?);
        let inside = overlay(&hub.identity()?)?;
        hub.configure(&hub_config(&members, &peer_id, more))?;
        peer.configure(&format!(
            "{}[[peers]]\nid = \"{hub_id}\"\nname = \"hub\"\nendpoints = [\"{}:{PORT}\"]\n",
            common(),
            hub.host.ipv4
        ))?;
        let group = memory.map(|megabytes| Group::enter(&hub.host, megabytes << 20)).transpose()?;
        let daemon = hub.daemon()?;
        if let Some(group) = &group {
            group.leave(&hub.host)?;
        }
        let peer_daemon = peer.daemon()?;
        peer.run(&["ping", "hub", "-c", "1", "-W", "10"])?;
        swarm.start(&hub_id, &format!("{}:{PORT}", hub.host.ipv4))?;
        let folder = Folder::create("pqvpn-flood")?;
        Ok(Self {
            hub,
            daemon,
            peer,
            _peer_daemon: peer_daemon,
            swarm,
            came: 0,
            arrivals: Vec::new(),
            flooder,
            stranger,
            hub_id,
            inside,
            folder,
            group,
            _switch: switch,
        })
    }

    /// One TCP connection from the peer to the hub.
    pub(in crate::command) fn course(&self, seconds: u32) -> Course<'_> {
        Course { one: &self.peer.host, two: &self.hub.host, target: self.inside, seconds }
    }

    /// Some of the crowd make their first handshake.
    pub(in crate::command) fn newcomers(&mut self, count: u16, gap: Duration) -> anyhow::Result<Value> {
        let from = self.came;
        self.came += count;
        let answers = self.swarm.ping_some(NEWCOMER, from, count, gap)?;
        self.arrivals.extend(vec![Instant::now(); count.into()]);
        Ok(answers)
    }

    /// Starts the stranger, who waits for the file that is returned.
    pub(super) fn stranger(
        &self,
        phase: &Phase,
        seconds: u32,
        times: u32,
    ) -> anyhow::Result<(Daemon, std::path::PathBuf)> {
        let start = self.folder.path().join(phase.name);
        let net: IpNet = STRANGER.parse()?;
        let IpAddr::V4(first) = net.addr() else { anyhow::bail!("an IPv4 network") };
        let mut command = Command::new(&self.flooder);
        command.args([phase.kind, &self.hub_id, &format!("{}:{PORT}", self.hub.host.ipv4), &first.to_string()]);
        command.args([phase.sources.to_string(), (phase.rate * times).to_string(), seconds.to_string()]).arg(&start);
        if phase.guesses_index {
            self.peer.run(&["ping", "hub", "-c", "1", "-W", "10"])?;
            let ping = || self.peer.run(&["ping", "hub", "-c", "3", "-i", "0.1", "-W", "10"]).map(drop);
            command.arg(format!("{:08x}", sniff::index(&self.hub.host, self.peer.host.ipv4, PORT, ping)?));
        }
        let stranger = Daemon::spawn(&self.stranger.namespace, "stranger", command)?;
        stranger.wait_for_line("ready", PATIENCE * 3)?;
        Ok((stranger, start))
    }

    /// What the hub says in the end, and whether it ends as it should.
    pub(in crate::command) fn finish(self, report: &mut Report) -> anyhow::Result<()> {
        let status = self.hub.json(&["status"])?;
        let peers = status["peers"].as_array().context("a status has peers")?;
        let sessions = peers.iter().filter(|peer| !peer["session"].is_null()).count();
        report.figure("sessions_in_the_end", sessions);
        let young = self.arrivals.iter().filter(|at| at.elapsed() < SURELY_KEPT).count();
        report.bar("sessions_in_the_end", Op::AtLeast, young as f64 + 1.0);
        if let Some(group) = &self.group {
            let figures = [("memory_limit", "limit_in_bytes"), ("memory_most", "max_usage_in_bytes")];
            for (figure, file) in figures {
                report.figure(figure, group.read(file)?);
            }
        }
        let finished = self.daemon.terminate(PATIENCE)?;
        report.figure("ended_well", u8::from(finished.status.success()));
        report.bar("ended_well", Op::Equal, 1.0);
        Ok(())
    }
}

/// Keeps what is started on a host to the first processor, where there are more.
fn pin(host: &Host) -> anyhow::Result<()> {
    if std::thread::available_parallelism()?.get() < 2 {
        return Ok(());
    }
    host.namespace.run(|| {
        let mut first = CpuSet::new();
        first.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &first)
    })??;
    Ok(())
}

fn id_of(identity: &Value) -> anyhow::Result<String> {
    Ok(identity["peer_id"].as_str().context("a node has a PeerID")?.to_owned())
}

fn overlay(identity: &Value) -> anyhow::Result<IpAddr> {
    let addresses = identity["addresses"].as_array().context("a node has addresses")?;
    let mut addresses = addresses.iter().filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
    addresses.find(IpAddr::is_ipv6).context("a node has an IPv6 address")
}

fn common() -> String {
    format!(
        "[node]\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nport_mapping = false\n[interface]\nname = \"{INTERFACE}\"\n\
         ipv4 = false\n[logging]\nlevel = \"warn\"\n[bootstrap]\nlan = false\n[dht]\nenabled = false\n"
    )
}

fn hub_config(members: &[Member], peer: &str, more: &str) -> String {
    let mut text = common() + more;
    let ids = members.iter().map(|member| member.id.as_str()).chain([peer]);
    for (number, id) in ids.enumerate() {
        // Writing to a text cannot fail.
        _ = writeln!(text, "[[peers]]\nid = \"{id}\"\nname = \"peer-{number}\"");
    }
    text
}
