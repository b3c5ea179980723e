// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab check`: what this machine lets the lab do.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use pqvpn_lab::impair::{self, Direction, Offloads};
use pqvpn_lab::netns::Privilege;
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::{self, Host};

/// Only the common options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, privilege: Privilege) -> anyhow::Result<Report> {
    let mut report = Report::new("check");
    let start = Instant::now();
    let (one, two) = topology::pair("one", "two")?;
    report.figure("setup_ms", start.elapsed().as_secs_f64() * 1e3);
    let way = match privilege {
        Privilege::Given => "given",
        Privilege::UserNamespace => "user namespace",
    };
    report.row([("what", "privilege".into()), ("state", way.into())]);
    let mut crossed = 0;
    for (from, to) in one.addresses().into_iter().zip(two.addresses()) {
        crossed += u32::from(cross(&one, SocketAddr::new(from, 0), &two, SocketAddr::new(to, 0))?);
    }
    report.figure("links_crossed", crossed);
    report.bar("links_crossed", Op::Equal, 2.0);
    let eth0 = &one.interface;
    let tools = [
        ("nft", impair::black_hole(eth0, Direction::Out).and_then(impair::Impairment::end)),
        ("tc tbf", impair::rate_limit(eth0, "100mbit", 10)),
        ("ethtool", impair::set_offloads(eth0, Offloads::Default)),
    ];
    for (tool, outcome) in tools {
        let state = outcome.map_or_else(|error| error.to_string(), |()| "works".to_owned());
        report.row([("what", tool.into()), ("state", state.into())]);
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let state = tun.map_or_else(|error| error.to_string(), |_| "works".to_owned());
    report.row([("what", "/dev/net/tun".into()), ("state", state.into())]);
    Ok(report)
}

/// Sends a datagram from one host to the other; whether it came.
fn cross(from: &Host, at: SocketAddr, to: &Host, target: SocketAddr) -> anyhow::Result<bool> {
    let receiver = to.namespace.run(move || UdpSocket::bind(target))??;
    let sender = from.namespace.run(move || UdpSocket::bind(at))??;
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    sender.send_to(b"hello", receiver.local_addr()?)?;
    let mut buffer = [0; 16];
    Ok(receiver.recv_from(&mut buffer).is_ok_and(|(len, _)| &buffer[..len] == b"hello"))
}
