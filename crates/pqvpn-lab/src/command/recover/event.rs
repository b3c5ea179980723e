// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can happen to two members, and how it is put right afterwards.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net};
use nix::sys::signal::Signal;
use pqvpn_lab::impair::Impairment;
use pqvpn_lab::nat::{Kind, Options, Site};
use pqvpn_lab::topology::{add_route, remove_route};

use crate::command::trio::Trio;

/// How long the default route is away.
const WITHOUT_ROUTE: Duration = Duration::from_secs(3);
/// The first address on the LAN that is moved to, beyond those of the others.
const ELSEWHERE: u8 = 100;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Event {
    /// The first host gets another address on its LAN.
    Address,
    /// The first host is plugged in behind another router.
    Move,
    /// Both routers forget every flow.
    NatFlush,
    /// Nothing gets through between the two routers any more, and nobody says so; relays are still reached.
    BlackHole,
    /// The relay in use is killed; there is another one.
    RelayKilled,
    /// The second daemon is killed and started again.
    PeerRestart,
    /// A daemon is stopped for a while, as in a sleeping laptop; the two take turns.
    Stop,
    /// The default route goes and comes back.
    Route,
}

impl Event {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Address,
        Self::Move,
        Self::NatFlush,
        Self::BlackHole,
        Self::RelayKilled,
        Self::PeerRestart,
        Self::Stop,
        Self::Route,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Move => "move",
            Self::NatFlush => "nat-flush",
            Self::BlackHole => "black-hole",
            Self::RelayKilled => "relay-killed",
            Self::PeerRestart => "peer-restart",
            Self::Stop => "stop",
            Self::Route => "route",
        }
    }

    /// Seconds that the 95th of a hundred may take.
    pub(super) const fn bar(self) -> f64 {
        match self {
            Self::Address => 1.0,
            Self::Move | Self::NatFlush | Self::RelayKilled | Self::Stop | Self::Route => 2.0,
            Self::PeerRestart => 3.0,
            Self::BlackHole => 5.0,
        }
    }

    /// How many relays it takes.
    pub(super) const fn relays(self) -> u8 {
        match self {
            Self::RelayKilled => 2,
            Self::Address
            | Self::Move
            | Self::NatFlush
            | Self::BlackHole
            | Self::PeerRestart
            | Self::Stop
            | Self::Route => 1,
        }
    }

    /// Whether it ends by itself at a moment from which the time counts.
    pub(super) const fn has_an_end(self) -> bool {
        matches!(self, Self::Stop | Self::Route)
    }

    /// Whether it is meant for a direct path.
    pub(super) const fn wants_direct(self) -> bool {
        !matches!(self, Self::RelayKilled)
    }
}

/// The members and what else an event needs.
pub(super) struct World {
    pub(super) event: Event,
    pub(super) trio: Trio,
    stop: Duration,
    /// Where the first host is plugged in next.
    other: Option<Site>,
    /// Between the two routers.
    cut: Option<Impairment>,
    killed: Option<usize>,
}

impl World {
    pub(super) fn new(event: Event, trio: Trio, nat: Kind, stop: Duration) -> anyhow::Result<Self> {
        let mut world = Self { event, trio, stop, other: None, cut: None, killed: None };
        match event {
            Event::Move => {
                let spare = world.trio.internet.hosts.last().context("a spare host")?;
                world.other = Some(Site::behind(spare, nat, &Options::default(), ELSEWHERE)?);
            }
            Event::RelayKilled => world.cut_direct_path()?,
            Event::Address | Event::NatFlush | Event::BlackHole | Event::PeerRestart | Event::Stop | Event::Route => {}
        }
        Ok(world)
    }

    /// Whether both ends reach each other straight.
    pub(super) fn is_direct(&self) -> anyhow::Result<bool> {
        Ok(self.trio.seen(0)?.is_direct() && self.trio.seen(1)?.is_direct())
    }

    /// Lets it happen, for the `number`-th time from 0; returns when it has happened.
    pub(super) fn happen(&mut self, number: u8) -> anyhow::Result<()> {
        match self.event {
            Event::Address => self.change_address(),
            Event::Move => self.move_away(),
            Event::NatFlush => self.trio.sites.iter().try_for_each(|site| Ok(site.forget()?)),
            Event::BlackHole => self.cut_direct_path(),
            Event::RelayKilled => self.kill_relay(),
            Event::PeerRestart => self.kill_peer(),
            Event::Stop => self.sleep_and_wake(usize::from(number % 2)),
            Event::Route => self.lose_route(),
        }
    }

    /// Puts right what has to be, for the next time.
    pub(super) fn put_right(&mut self) -> anyhow::Result<()> {
        if self.event == Event::BlackHole
            && let Some(cut) = self.cut.take()
        {
            cut.end()?;
        }
        if let Some(killed) = self.killed.take() {
            self.trio.relays[killed].start()?;
        }
        Ok(())
    }

    fn cut_direct_path(&mut self) -> anyhow::Result<()> {
        self.cut = Some(self.trio.cut_direct_path()?);
        Ok(())
    }

    fn change_address(&mut self) -> anyhow::Result<()> {
        let site = &mut self.trio.sites[0];
        let host = &mut self.trio.ends[0].node.host;
        let address = site.free();
        host.interface.remove_address(lan(host.ipv4))?;
        host.interface.add_address(address)?;
        // The route went with the only address of its network.
        add_route(&host.namespace, everywhere(), site.gateway())?;
        if let IpAddr::V4(ipv4) = address.addr() {
            host.ipv4 = ipv4;
        }
        Ok(())
    }

    fn move_away(&mut self) -> anyhow::Result<()> {
        let other = self.other.as_mut().context("another LAN")?;
        let (host, port) = other.adopt(&self.trio.ends[0].node.host, &self.trio.ports[0])?;
        self.trio.ends[0].node.host = host;
        self.trio.ports[0] = port;
        std::mem::swap(other, &mut self.trio.sites[0]);
        Ok(())
    }

    fn kill_relay(&mut self) -> anyhow::Result<()> {
        let path = self.trio.seen(0)?.path;
        let (via, remote) = (path["via"].as_str(), path["remote"].as_str().unwrap_or_default());
        let mut used = None;
        for (index, relay) in self.trio.relays.iter().enumerate() {
            let id = relay.peer_id()?;
            let named =
                via.is_some_and(|via| via == id || via == relay.name || via.starts_with(&format!("{}.", relay.name)));
            if named || remote.starts_with(&format!("{}:", relay.node.host.ipv4)) {
                used = Some(index);
            }
        }
        let used = used.with_context(|| format!("no relay is in use: {path}"))?;
        self.killed = Some(used);
        self.trio.relays[used].daemon.take().context("a relay that runs")?.kill();
        Ok(())
    }

    fn kill_peer(&mut self) -> anyhow::Result<()> {
        let peer = &mut self.trio.ends[1];
        peer.daemon.take().context("a daemon that runs")?.kill();
        peer.start()
    }

    fn sleep_and_wake(&self, end: usize) -> anyhow::Result<()> {
        let daemon = self.trio.ends[end].daemon.as_ref().context("a daemon that runs")?;
        daemon.signal(Signal::SIGSTOP)?;
        // The event itself.
        thread::sleep(self.stop);
        Ok(daemon.signal(Signal::SIGCONT)?)
    }

    fn lose_route(&self) -> anyhow::Result<()> {
        let (host, gateway) = (&self.trio.ends[0].node.host, self.trio.sites[0].gateway());
        remove_route(&host.namespace, everywhere(), gateway)?;
        // The event itself.
        thread::sleep(WITHOUT_ROUTE);
        Ok(add_route(&host.namespace, everywhere(), gateway)?)
    }
}

fn everywhere() -> IpNet {
    IpNet::V4(Ipv4Net::default())
}

fn lan(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, 24))
}
