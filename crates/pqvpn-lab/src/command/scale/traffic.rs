// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams from the hub's host to its peers, as fast as they arrive.
//!
//! The sender has no more under way than a window, so that it neither waits for long nor fills queues that drop; it asks the
//! peers' process what has arrived, or an interface of the hub's what it has passed on.

use std::fs::File;
use std::io::{IoSlice, Read as _, Seek as _};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg};
use pqvpn_lab::topology::Host;

use super::swarm::Swarm;

/// Bytes of a datagram.
pub(super) const SIZE: u16 = 1200;
/// Most datagrams that the kernel takes as one and hands on as one.
pub(super) const LONGEST: u16 = 48;
/// Bytes under way.
const WINDOW: u64 = 1 << 20;
/// Bursts under way: a TUN device drops what finds 500 before it (`txqueuelen`).
const QUEUE: u64 = 400;
/// What every byte of payload is: outside of a tunnel a datagram of it looks like one of a tunnel, too ([`super::data`]).
const PATTERN: u8 = 0x3a;
/// Pause between two questions what has arrived.
const PAUSE: Duration = Duration::from_micros(50);
/// What has not arrived when nothing arrives for this long is lost.
const LOST: Duration = Duration::from_millis(20);

/// What came of it.
pub(super) struct Sent {
    pub(super) gbit_s: f64,
    pub(super) gigabytes: f64,
    pub(super) lost_percent: f64,
}

/// Who knows what has come.
pub(super) enum Count<'a> {
    /// The peers.
    Delivered(&'a mut Swarm),
    /// An interface on the way there: nobody is there to tell.
    Passed(Passed),
}

/// What an interface has transmitted; of a TUN device that is what was read from it.
pub(super) struct Passed {
    table: File,
    interface: String,
    /// Bytes of headers that each burst has there.
    headers: u64,
}

impl Passed {
    pub(super) fn new(host: &Host, interface: &str, headers: u64) -> anyhow::Result<Self> {
        // The table is that of whoever opened it.
        let table = host.namespace.run(|| File::open("/proc/thread-self/net/dev"))??;
        Ok(Self { table, interface: interface.to_owned(), headers })
    }

    /// Bytes transmitted (proc_pid_net(5), `dev`).
    pub(super) fn bytes(&mut self) -> anyhow::Result<u64> {
        let mut table = String::new();
        self.table.rewind()?;
        self.table.read_to_string(&mut table)?;
        let lines = table.lines().filter_map(|line| line.split_once(':'));
        let counters = lines.filter(|(name, _)| name.trim() == self.interface).map(|(_, counters)| counters).next();
        let transmitted = counters.and_then(|counters| counters.split_whitespace().nth(8));
        transmitted.context("the interface is there")?.parse().context("the kernel counts")
    }
}

impl Count<'_> {
    /// Bytes of payload, of bursts of `burst` bytes each.
    fn bytes(&mut self, burst: u64) -> anyhow::Result<u64> {
        match self {
            Self::Delivered(swarm) => swarm.bytes(),
            Self::Passed(passed) => Ok(passed.bytes()? / (burst + passed.headers) * burst),
        }
    }
}

/// Sends to the targets in turn, `burst` datagrams each time.
#[expect(clippy::cast_precision_loss, reason = "bytes of a few seconds")]
pub(super) fn flat_out(
    host: &Host,
    mut count: Count<'_>,
    targets: &[SocketAddrV6],
    burst: u16,
    seconds: u32,
) -> anyhow::Result<Sent> {
    let socket = host.namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
    let payload = vec![PATTERN; usize::from(SIZE) * usize::from(burst)];
    let targets: Vec<SockaddrIn6> = targets.iter().map(|target| (*target).into()).collect();
    let one = payload.len() as u64;
    // Stragglers of the transfer before are not counted for this one.
    let mut before = count.bytes(one)?;
    loop {
        thread::sleep(LOST * 5);
        let now = count.bytes(one)?;
        // Others may use the interface, too.
        if now - before < u64::from(SIZE) * u64::from(LONGEST) {
            break;
        }
        before = now;
    }
    let before = count.bytes(one)?;
    let mut flow = Flow { count, one, before, sent: 0, arrived: 0, lost: 0, at: Instant::now() };
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
    for target in targets.iter().cycle() {
        if begun.elapsed() >= limit {
            break;
        }
        let parts = [IoSlice::new(&payload)];
        let segments = [ControlMessage::UdpGsoSegments(&SIZE)];
        let segments = if burst > 1 { &segments[..] } else { &[] };
        sendmsg(socket.as_raw_fd(), &parts, segments, MsgFlags::empty(), Some(target))?;
        flow.sent += one;
        flow.wait_for_room(WINDOW.min(QUEUE * one))?;
    }
    flow.wait_for_room(1)?;
    let took = flow.at.saturating_duration_since(begun).as_secs_f64();
    Ok(Sent {
        gbit_s: flow.arrived as f64 * 8.0 / 1e9 / took,
        gigabytes: flow.arrived as f64 / 1e9,
        lost_percent: 100.0 - flow.arrived as f64 * 100.0 / flow.sent as f64,
    })
}

/// What was sent and what is known to have arrived.
struct Flow<'a> {
    count: Count<'a>,
    /// Bytes of a burst.
    one: u64,
    before: u64,
    sent: u64,
    arrived: u64,
    /// Given up.
    lost: u64,
    /// When something was last seen to have arrived.
    at: Instant,
}

impl Flow<'_> {
    /// Waits until less than `window` bytes are under way.
    fn wait_for_room(&mut self, window: u64) -> anyhow::Result<()> {
        let mut since = None;
        while self.sent.saturating_sub(self.arrived + self.lost) >= window {
            let arrived = self.count.bytes(self.one)?.saturating_sub(self.before);
            let now = Instant::now();
            if arrived > self.arrived {
                // What was given up may only have been late.
                self.lost = self.lost.saturating_sub(arrived - self.arrived);
                (self.arrived, self.at, since) = (arrived, now, Some(now));
            } else if now.saturating_duration_since(*since.get_or_insert(now)) >= LOST {
                self.lost = self.sent.saturating_sub(self.arrived);
            } else {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}
