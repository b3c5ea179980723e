// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subcommands, one file each.

use clap::Subcommand;
use pqvpn_lab::netns::Privilege;
use pqvpn_lab::report::Report;

mod bench;
mod check;
mod dht;
mod flood;
mod ladder;
mod mtu;
mod nat_kinds;
mod nat_matrix;
mod network;
mod node;
mod portmap;
mod recover;
mod relay_bench;
mod scale;
mod seed;
mod soak;
mod spread;
mod stream;
mod trio;

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Speed of the tunnel beside the bare link, its own ceiling and other tunnels, all in one run, interleaved.
    Bench(bench::Args),
    /// What this machine lets the lab do: namespaces, links between them, impairments.
    Check(check::Args),
    /// Many daemons that know one bootstrap node: does everybody find everybody, how fast, and how quiet are they then?
    Dht(dht::Args),
    /// Strangers send all they can to one end of a busy tunnel: who still gets in, how fast is the tunnel, what grows?
    Flood(flood::Args),
    /// Two machines that know nothing, many daemons by one code, and more: how long does joining take?
    Join(network::join::Args),
    /// Networks without UDP, without anything but a proxy, and nine links that get worse: how do members meet?
    Ladder(ladder::Args),
    /// A path that swallows long packets and tells nobody: does TCP get through, after how long, with which MTU?
    Mtu(mtu::Args),
    /// What each kind of NAT router of the lab does, by plain sockets, and how often port guessing gets in.
    NatKinds(nat_kinds::Args),
    /// Members behind every pair of NAT kinds: direct, relayed or cut off, and after how long?
    NatMatrix(nat_matrix::Args),
    /// A network cut in two that goes on in both halves, and heals: is it one again, and who has which address?
    Partition(network::partition::Args),
    /// Members behind symmetric routers, one of which opens ports when asked by PCP, NAT-PMP or UPnP: do they meet?
    Portmap(portmap::Args),
    /// Addresses change, routers forget, relays die, laptops sleep: how long is a stream between two members away?
    Recover(recover::Args),
    /// Throughput of two members that only meet at a relay, and what the relay pays for it.
    RelayBench(relay_bench::Args),
    /// A member that sends without pause is revoked: when does its last packet arrive, and does anybody take it back?
    Revoke(network::revoke::Args),
    /// Peers leave and come, roam and step their keys all the time: does anything of a daemon grow?
    Soak(soak::Args),
    /// One daemon and a thousand peers: memory, CPU and throughput, and is everybody back after it was killed?
    Scale(scale::Args),
}

impl Command {
    /// Runs it and returns its report.
    pub(crate) fn run(&self, privilege: Privilege) -> anyhow::Result<Report> {
        match self {
            Self::Bench(args) => bench::run(args),
            Self::Check(args) => check::run(args, privilege),
            Self::Dht(args) => dht::run(args),
            Self::Flood(args) => flood::run(args),
            Self::Join(args) => network::join::run(args),
            Self::Ladder(args) => ladder::run(args),
            Self::Mtu(args) => mtu::run(args),
            Self::NatKinds(args) => nat_kinds::run(args),
            Self::NatMatrix(args) => nat_matrix::run(args),
            Self::Partition(args) => network::partition::run(args),
            Self::Portmap(args) => portmap::run(args),
            Self::Recover(args) => recover::run(args),
            Self::RelayBench(args) => relay_bench::run(args),
            Self::Revoke(args) => network::revoke::run(args),
            Self::Scale(args) => scale::run(args),
            Self::Soak(args) => soak::run(args),
        }
    }
}
