// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two members, mostly behind routers of their own, and one or more that everybody reaches and that relay; one network.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::impair::{self, Delay, Impairment};
use pqvpn_lab::nat::{Kind, Options, Site};
use pqvpn_lab::topology::{Interface, Internet, internet};
use serde_json::Value;

use super::network::{LOOK, Member, Mesh, NETWORK, SETTLE, look};
use super::node::{PATIENCE, PORT};

/// Configuration of everybody: neither the DHT nor the local network helps, only members do.
const COMMON: &str = "[bootstrap]\nlan = false\n[dht]\nenabled = false\n";
/// How long one ping is waited for: longer than any round trip here.
const ONE_PING: Duration = Duration::from_secs(3);
/// What relays have on top.
const RELAYS: &str = "[relay]\nenabled = true\n";

/// The hosts, routers and daemons.
pub(super) struct Trio {
    /// Members that everybody reaches; the first founded the network.
    pub(super) relays: Vec<Member>,
    /// The two that are looked at.
    pub(super) ends: [Member; 2],
    /// Their cables' far ends, where they are behind routers.
    pub(super) ports: Vec<Interface>,
    /// Where they are, if behind routers.
    pub(super) sites: Vec<Site>,
    /// Identities of the two.
    pub(super) ids: [String; 2],
    /// Spare hosts come last.
    pub(super) internet: Internet,
    _delays: Vec<Delay>,
}

/// What to build.
pub(super) struct Plan<'a> {
    /// The daemon.
    pub(super) program: &'a Path,
    /// The routers of the two; without, both are on the internet.
    pub(super) kinds: Option<[Kind; 2]>,
    /// How many members everybody reaches.
    pub(super) relays: u8,
    /// Hosts of the internet without a daemon.
    pub(super) spare: u8,
    /// What the configuration of the two has more.
    pub(super) ends: &'a str,
    /// What that of the relays has more, at the end of its `[relay]`.
    pub(super) relay: &'a str,
    /// Whether the first is told where the second's router is, as if that forwarded a port.
    pub(super) pinned: bool,
    /// Time from one end to the other and back; to a relay it is half of that.
    pub(super) round_trip: Duration,
}

impl<'a> Plan<'a> {
    /// Two members behind routers, or on the internet, and one relay.
    pub(super) const fn new(program: &'a Path, kinds: Option<[Kind; 2]>) -> Self {
        Self { program, kinds, relays: 1, spare: 0, ends: "", relay: "", pinned: false, round_trip: Duration::ZERO }
    }
}

/// How one end sees the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// `verified`, `stale` and so on.
    pub(super) state: String,
    /// `direct`, `relay`, or empty without a path.
    pub(super) kind: String,
    /// Why not a better one.
    pub(super) why: String,
    /// Inner MTU.
    pub(super) mtu: Option<u64>,
    /// The whole path, for what only some need.
    pub(super) path: Value,
}

/// Each end's way to the middle of the internet is half of the way to the other.
fn delays(internet: &Internet, round_trip: Duration) -> anyhow::Result<Vec<Delay>> {
    let ports = ["port0", "port1"].map(|port| Interface::find(&internet.router, port));
    ports.into_iter().map(|port| Ok(impair::delay(&port?, round_trip / 2)?)).collect()
}

impl Seen {
    /// Whether the other is reached straight, and that is known.
    pub(super) fn is_direct(&self) -> bool {
        self.state == "verified" && self.kind == "direct"
    }
}

impl Trio {
    /// Hosts, routers and files; no daemon runs yet.
    pub(super) fn build(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let internet = internet(2 + plan.relays + plan.spare)?;
        let [first, second, others @ ..] = internet.hosts.as_slice() else { anyhow::bail!("two gateways") };
        let (mut sites, mut ports) = (Vec::new(), Vec::new());
        let mut hosts = [first.clone(), second.clone()];
        for (number, kind) in plan.kinds.into_iter().flatten().enumerate() {
            // Both LANs have one range; only the hosts' numbers differ.
            let number_from = if number == 0 { 10 } else { 20 };
            let mut site = Site::behind(&internet.hosts[number], kind, &Options::default(), number_from)?;
            let (host, port) = site.plug(&format!("h{}", number + 1))?;
            hosts[number] = host;
            sites.push(site);
            ports.push(port);
        }
        let ends = [
            Member::make(plan.program, &hosts[0], "h1", &(COMMON.to_owned() + plan.ends))?,
            Member::make(plan.program, &hosts[1], "h2", &(COMMON.to_owned() + plan.ends))?,
        ];
        let ids = [ends[0].peer_id()?, ends[1].peer_id()?];
        let relay = |number: usize| {
            Member::make(
                plan.program,
                &others[number],
                &format!("r{number}"),
                &format!("{COMMON}{RELAYS}{}", plan.relay),
            )
        };
        let relays = (0..plan.relays.into()).map(relay).collect::<anyhow::Result<_>>()?;
        let delays = if plan.round_trip.is_zero() { Vec::new() } else { delays(&internet, plan.round_trip)? };
        let trio = Self { relays, ends, ports, sites, ids, internet, _delays: delays };
        if plan.pinned {
            let (id, place) = (&trio.ids[1], trio.outside(1));
            trio.ends[0].configure(&format!("[[peers]]\nid = \"{id}\"\nendpoints = [\"{place}:{PORT}\"]\n"))?;
        }
        Ok(trio)
    }

    /// The first relay makes the network, and everybody else is in it afterwards.
    pub(super) fn found(&mut self) -> anyhow::Result<()> {
        for member in self.relays.iter_mut().chain(&mut self.ends) {
            member.start()?;
        }
        let (founder, others) = self.relays.split_first().context("a relay")?;
        founder.json(&["net", "create", NETWORK, "--as", &founder.name])?;
        let code = founder.invite(others.len() + self.ends.len())?;
        for member in others.iter().chain(&self.ends) {
            member.join(&code).with_context(|| format!("{} joins", member.name))?;
        }
        Mesh::settle(&self.relays.iter().chain(&self.ends).collect::<Vec<_>>(), SETTLE)?;
        Ok(())
    }

    /// Both ends and their routers start anew and remember nothing but their files; both are in touch with a relay
    /// afterwards.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.halt()?;
        self.resume()
    }

    /// The first half of it: everything stops and is forgotten.
    pub(super) fn halt(&mut self) -> anyhow::Result<()> {
        self.ends.iter_mut().try_for_each(Member::stop)?;
        self.sites.iter().try_for_each(|site| Ok(site.forget()?))
    }

    /// The second.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.ends.iter_mut().try_for_each(Member::start)?;
        self.in_touch()
    }

    /// Waits until both ends hold a link to a member.
    pub(super) fn in_touch(&self) -> anyhow::Result<()> {
        for end in &self.ends {
            look(&format!("{} to be in touch with the network", end.name), PATIENCE, || {
                let links = end.network().ok()?["gossip"]["links"].as_u64()?;
                (links > 0).then_some(())
            })?;
        }
        Ok(())
    }

    /// How one end (0 or 1) sees the other.
    pub(super) fn seen(&self, end: usize) -> anyhow::Result<Seen> {
        self.sees(end, &self.ids[1 - end])
    }

    /// How one end sees any peer.
    pub(super) fn sees(&self, end: usize, id: &str) -> anyhow::Result<Seen> {
        let status = self.ends[end].json(&["status"])?;
        let peers = status["peers"].as_array().context("peers")?;
        let Some(peer) = peers.iter().find(|peer| peer["peer_id"] == id) else { return Ok(Seen::default()) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = &peer["path"];
        Ok(Seen {
            state: text(&peer["state"]),
            kind: text(&path["kind"]),
            why: if path.is_null() { text(&peer["last_error"]) } else { text(&path["why"]) },
            mtu: path["mtu"].as_u64(),
            path: path.clone(),
        })
    }

    /// Pings the second end from the first until an answer comes; gives how long that took.
    pub(super) fn first_packet(&self, limit: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut why = String::new();
        let answered = look("a first packet", limit, || {
            // One ping is one datagram each way, which a bad link loses.
            let left = limit.saturating_sub(start.elapsed()).min(ONE_PING);
            match self.ends[0].ping(&self.ends[1].name, left) {
                Ok(()) => Some(start.elapsed()),
                Err(error) => {
                    why = format!("{error:#}");
                    None
                }
            }
        });
        answered.with_context(|| why)
    }

    /// Nothing goes between the two any more but over others, until the result is dropped.
    pub(super) fn cut_direct_path(&self) -> anyhow::Result<Impairment> {
        let [one, two] = [0, 1].map(|end| self.outside(end));
        Ok(impair::cut(&self.internet.router, one, two)?)
    }

    /// The address of one end as the internet sees it.
    pub(super) fn outside(&self, end: usize) -> Ipv4Addr {
        self.sites.get(end).map_or(self.ends[end].node.host.ipv4, Site::outside)
    }

    /// Waits until the first end sees the second over a path of this kind, and pings for it.
    pub(super) fn wait_for_path(&self, kind: &str, limit: Duration) -> anyhow::Result<Seen> {
        let mut last = Seen::default();
        let found = look(&format!("a {kind} path"), limit, || {
            _ = self.ends[0].ping(&self.ends[1].name, LOOK * 4);
            last = self.seen(0).ok()?;
            (last.state == "verified" && last.kind == kind).then(|| last.clone())
        });
        found.with_context(|| format!("last seen: {} {} {}", last.state, last.kind, last.why))
    }

    /// The IPv4 address of one end inside the network.
    pub(super) fn inner(&self, end: usize) -> anyhow::Result<IpAddr> {
        self.ends[end].addresses()?.into_iter().find(IpAddr::is_ipv4).context("an IPv4 address")
    }

    /// Ends all daemons that run, and tells of a bad end.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.ends.iter_mut().chain(&mut self.relays).try_for_each(Member::stop)
    }
}
