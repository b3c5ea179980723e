// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams from the hub's host to its peers, as fast as they arrive.
//!
//! The sender has no more under way than a window, so that it neither waits for long nor fills queues that drop; it asks the
//! peers' process what has arrived.

use std::io::IoSlice;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg};
use pqvpn_lab::topology::Host;

use super::swarm::Swarm;

/// Bytes of a datagram.
const SIZE: u16 = 1200;
/// Most datagrams that the kernel takes as one and hands on as one.
pub(super) const LONGEST: u16 = 48;
/// Bytes under way.
const WINDOW: u64 = 1 << 20;
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

/// Sends to the targets in turn, `burst` datagrams each time.
#[expect(clippy::cast_precision_loss, reason = "bytes of a few seconds")]
pub(super) fn flat_out(
    host: &Host,
    swarm: &mut Swarm,
    targets: &[SocketAddrV6],
    burst: u16,
    seconds: u32,
) -> anyhow::Result<Sent> {
    let socket = host.namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
    let payload = vec![0x5a; usize::from(SIZE) * usize::from(burst)];
    let targets: Vec<SockaddrIn6> = targets.iter().map(|target| (*target).into()).collect();
    // Stragglers of the transfer before are not counted for this one.
    let mut before = swarm.bytes()?;
    loop {
        thread::sleep(LOST * 5);
        let now = swarm.bytes()?;
        if now == before {
            break;
        }
        before = now;
    }
    let mut flow = Flow { before, sent: 0, arrived: 0, lost: 0, at: Instant::now() };
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
    for target in targets.iter().cycle() {
        if begun.elapsed() >= limit {
            break;
        }
        let parts = [IoSlice::new(&payload)];
        let segments = [ControlMessage::UdpGsoSegments(&SIZE)];
        let segments = if burst > 1 { &segments[..] } else { &[] };
        sendmsg(socket.as_raw_fd(), &parts, segments, MsgFlags::empty(), Some(target))?;
        flow.sent += payload.len() as u64;
        flow.wait_for_room(swarm, WINDOW)?;
    }
    flow.wait_for_room(swarm, 1)?;
    let took = flow.at.saturating_duration_since(begun).as_secs_f64();
    Ok(Sent {
        gbit_s: flow.arrived as f64 * 8.0 / 1e9 / took,
        gigabytes: flow.arrived as f64 / 1e9,
        lost_percent: 100.0 - flow.arrived as f64 * 100.0 / flow.sent as f64,
    })
}

/// What was sent and what is known to have arrived.
struct Flow {
    before: u64,
    sent: u64,
    arrived: u64,
    /// Given up.
    lost: u64,
    /// When something was last seen to have arrived.
    at: Instant,
}

impl Flow {
    /// Waits until less than `window` bytes are under way.
    fn wait_for_room(&mut self, swarm: &mut Swarm, window: u64) -> anyhow::Result<()> {
        let mut since = None;
        while self.sent.saturating_sub(self.arrived + self.lost) >= window {
            let arrived = swarm.bytes()?.saturating_sub(self.before);
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
