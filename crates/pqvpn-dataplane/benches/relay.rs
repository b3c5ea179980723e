// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast one node relays, over the loopback interface: `cargo bench -p pqvpn-dataplane --bench relay [-- SECONDS]`.
//!
//! A guest sends relay datagrams as fast as it can, a plane with one forward sends them on, and a socket counts what
//! arrives. One line of JSON: the rate at the receiver, the CPU time of the relay's packet thread per 10^9 bytes that it
//! sent on (the kernel's work for both its sides is in it), and what share of the datagrams overran its socket.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench stops at the first surprise and prints")]

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::socket::{setsockopt, sockopt},
    unistd::{SysconfVar, sysconf},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, GuestTransmit, Offloads,
    mem::MemTun,
    way::{Forward, ForwardLimit},
};
use pqvpn_packet::relay::Channel;

/// A full-sized tunnel packet on a 1500-byte network, with its relay header.
const DATAGRAM: usize = 1460;
const AT_ONCE: usize = 44;

fn plane() -> (DataPlane, MemTun, UdpSocket) {
    let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let same = socket.try_clone().unwrap();
    let config =
        DataPlaneConfig { tun: vec![(Box::new(reader), Box::new(writer))], sockets: vec![socket], inner_mtu: 1420 };
    (DataPlane::start(config, Arc::new(|_| ())).unwrap(), tun, same)
}

/// CPU time of the inbound threads of this process: only that of the relay has work.
fn inbound_cpu() -> Duration {
    let ticks: u64 = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok())
        .filter_map(|stat| {
            let (name, rest) = stat.rsplit_once(')')?;
            let fields: Vec<_> = rest.split_whitespace().collect();
            name.contains("(pqvpn-net-")
                .then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
        })
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(3);
    let (sender, _tun, from) = plane();
    let (relay, _tun, at) = plane();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    setsockopt(&receiver, sockopt::UdpGroSegment, &true).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let limit = Arc::new(ForwardLimit::new(u64::MAX, u64::MAX));
    let (from, to) = (from.local_addr().unwrap(), receiver.local_addr().unwrap());
    relay.control().set_forward(1, Forward { from, to, out_channel: 2, limit }).unwrap();
    let (stop, received, sent) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let datagram = [&Channel::new(1).unwrap().header()[..], &[0x24; DATAGRAM - 8]].concat();
    let contents = datagram.repeat(AT_ONCE);
    let guest = sender.guest();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let len = receiver.recv(&mut buf).unwrap_or(0);
                received.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let dst = at.local_addr().unwrap();
            let transmit =
                GuestTransmit { dst, src_ip: None, ecn: None, contents: &contents, segment_size: Some(DATAGRAM) };
            while !stop.load(Ordering::Relaxed) {
                match guest.try_send(&transmit) {
                    Ok(()) => drop(sent.fetch_add(contents.len() as u64, Ordering::Relaxed)),
                    Err(_) => thread::yield_now(),
                }
            }
        });
        thread::sleep(Duration::from_millis(300));
        let look = || {
            let relayed = relay.control().forward_stats(1).unwrap().bytes;
            (Instant::now(), received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed), relayed, inbound_cpu())
        };
        let before = look();
        thread::sleep(Duration::from_secs(seconds));
        let after = look();
        stop.store(true, Ordering::Relaxed);
        let elapsed = (after.0 - before.0).as_secs_f64();
        let relayed = (after.3 - before.3) as f64;
        println!(
            r#"{{"received_gbit_s": {:.2}, "relayed_gbit_s": {:.2}, "relay_cpu_s_per_gb": {:.3}, "relay_cpu_share": {:.2}, "overrun": {:.3}}}"#,
            (after.1 - before.1) as f64 * 8.0 / elapsed / 1e9,
            relayed * 8.0 / elapsed / 1e9,
            (after.4 - before.4).as_secs_f64() / (relayed / 1e9),
            (after.4 - before.4).as_secs_f64() / elapsed,
            1.0 - relayed / (after.2 - before.2) as f64,
        );
    });
}
