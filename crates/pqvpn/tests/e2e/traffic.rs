// SPDX-License-Identifier: MIT OR Apache-2.0
//! Traffic made inside the namespaces: UDP of any size, numbered UDP at a steady pace, TCP with checked content.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use pqvpn_lab::netns::Namespace;

use crate::rig::LIMIT;

/// Bytes of content that repeat in a TCP transfer; prime, so that shifted segments show.
const PATTERN: usize = 65_521;

/// A UDP socket inside a namespace.
pub(crate) fn udp(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = namespace.run(move || UdpSocket::bind(address)).unwrap();
    let socket = socket.unwrap_or_else(|error| panic!("bind {address} in {}: {error}", namespace.name()));
    // Needs CAP_NET_ADMIN in the first user namespace; without it the ordinary limit holds.
    if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).unwrap();
    }
    setsockopt(&socket, sockopt::SndBuf, &(1 << 20)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// The wildcard address of the same family.
pub(crate) fn any(like: IpAddr) -> SocketAddr {
    let ip: IpAddr = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}

/// Bytes nobody makes by accident, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(next(&mut state).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// xorshift64*: good enough to be no protocol's packet.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Sends one datagram of each length through the tunnel and has it echoed; content is checked both ways.
pub(crate) fn echo_sizes(from: &Namespace, to: &Namespace, address: IpAddr, lengths: &[usize]) {
    let server = udp(to, SocketAddr::new(address, 0));
    let client = udp(from, any(address));
    client.connect(server.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    for (seed, &len) in (1..).zip(lengths) {
        let sent = noise(seed, len);
        client.send(&sent).unwrap_or_else(|error| panic!("{len} bytes to {address}: {error}"));
        let got = server.recv_from(&mut buffer);
        let (got, back) = got.unwrap_or_else(|error| panic!("{len} bytes at {address}: {error}"));
        assert!(buffer[..got] == sent, "{len} bytes changed on the way to {address}");
        server.send_to(&buffer[..got], back).unwrap();
        let got = client.recv(&mut buffer).unwrap_or_else(|error| panic!("{len} bytes back from {address}: {error}"));
        assert!(buffer[..got] == sent, "{len} bytes changed on the way back from {address}");
    }
}

/// Moves `len` bytes over one TCP connection and checks each; returns the rate in Mbit/s.
pub(crate) fn tcp_transfer(from: &Namespace, to: &Namespace, address: IpAddr, len: usize) -> f64 {
    let listener = to.run(move || TcpListener::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let pattern: Arc<[u8]> = noise(7, PATTERN).into();
    let expected = Arc::clone(&pattern);
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (mut chunk, mut got) = (vec![0; 1 << 18], 0);
        loop {
            let read = stream.read(&mut chunk).unwrap_or_else(|error| panic!("after {got} bytes: {error}"));
            if read == 0 {
                break;
            }
            check_pattern(&chunk[..read], got, &expected);
            got += read;
        }
        stream.write_all(&got.to_be_bytes()).unwrap();
        got
    });
    let mut stream = from.run(move || TcpStream::connect_timeout(&target, LIMIT)).unwrap().unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let start = Instant::now();
    let mut left = len;
    while left > 0 {
        let piece = left.min(PATTERN);
        stream.write_all(&pattern[..piece]).unwrap();
        left -= piece;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut told = [0; size_of::<usize>()];
    stream.read_exact(&mut told).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((usize::from_be_bytes(told), receiver.join().unwrap()), (len, len));
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bits = len as f64 * 8.0;
    bits / seconds / 1e6
}

fn check_pattern(mut bytes: &[u8], at: usize, pattern: &[u8]) {
    let mut offset = at % PATTERN;
    while !bytes.is_empty() {
        let piece = bytes.len().min(PATTERN - offset);
        assert!(bytes[..piece] == pattern[offset..offset + piece], "TCP content differs near byte {at}");
        bytes = &bytes[piece..];
        offset = 0;
    }
}

/// Numbered datagrams at a steady pace, echoed by the far end, until it is told to stop.
pub(crate) struct Numbered {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    echoed: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    far: JoinHandle<Seen>,
    near: JoinHandle<Seen>,
}

/// What one end saw of the numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) count: u64,
    pub(crate) duplicates: u64,
    pub(crate) longest_gap: Duration,
    numbers: BTreeMap<u64, u64>,
}

/// The end of a numbered run.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Datagrams the sender's kernel took.
    pub(crate) sent: u64,
    /// Datagrams the sender's kernel refused (no route, for a moment).
    pub(crate) refused: u64,
    pub(crate) far: Seen,
    pub(crate) near: Seen,
}

impl Numbered {
    /// Starts sending from `from` to `address` in `to`, one datagram of `len` bytes every `pace`.
    pub(crate) fn start(from: &Namespace, to: &Namespace, address: IpAddr, pace: Duration, len: usize) -> Self {
        let server = udp(to, SocketAddr::new(address, 0));
        let client = udp(from, any(address));
        let target = server.local_addr().unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let echoed = Arc::new(AtomicU64::new(0));
        let receiving = client.try_clone().unwrap();
        let far = watch(server, Arc::clone(&stop), Arc::new(AtomicU64::new(0)), true);
        let near = watch(receiving, Arc::clone(&stop), Arc::clone(&echoed), false);
        let (flag, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let sender = thread::spawn(move || {
            let start = Instant::now();
            let mut datagram = vec![0x55; len.max(8)];
            let (mut number, mut refused) = (0_u64, 0);
            while !flag.load(Relaxed) {
                datagram[..8].copy_from_slice(&number.to_be_bytes());
                match client.send_to(&datagram, target) {
                    Ok(_) => {
                        number += 1;
                        counter.store(number, Relaxed);
                    }
                    Err(_) => refused += 1,
                }
                let due = start + pace * u32::try_from(number + refused).unwrap();
                // A pace, not a hope: what follows does not depend on how long this took.
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            refused
        });
        Self { stop, sent, echoed, sender, far, near }
    }

    /// Datagrams sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Datagrams that came back so far.
    pub(crate) fn echoed(&self) -> u64 {
        self.echoed.load(Relaxed)
    }

    /// Stops sending, waits until nothing arrives any more, and counts.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Relaxed);
        let refused = self.sender.join().unwrap();
        let (far, near) = (self.far.join().unwrap(), self.near.join().unwrap());
        Tally { sent: self.sent.load(Relaxed), refused, far, near }
    }
}

impl Tally {
    /// Numbers the far end did not see.
    pub(crate) fn lost_there(&self) -> u64 {
        self.sent - self.far.count
    }

    /// Numbers the far end saw whose echo did not come back.
    pub(crate) fn lost_back(&self) -> u64 {
        self.far.count - self.near.count
    }
}

impl Seen {
    /// Ranges of numbers not seen below `sent`, as `first..last`.
    pub(crate) fn missing(&self, sent: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut expected = 0;
        for (&first, &end) in &self.numbers {
            if first > expected {
                gaps.push((expected, first - 1));
            }
            expected = end;
        }
        if expected < sent {
            gaps.push((expected, sent - 1));
        }
        gaps
    }

    /// Notes a number in the map of ranges `first -> end`; false when it was there.
    fn note(&mut self, number: u64) -> bool {
        let before = self.numbers.range(..=number).next_back().map(|(&first, &end)| (first, end));
        if before.is_some_and(|(_, end)| number < end) {
            self.duplicates += 1;
            return false;
        }
        let end = self.numbers.remove(&(number + 1)).unwrap_or(number + 1);
        let first = before.filter(|&(_, end)| end == number).map_or(number, |(first, _)| first);
        self.numbers.insert(first, end);
        self.count += 1;
        true
    }
}

/// Collects numbers until told to stop and the line is quiet.
fn watch(socket: UdpSocket, stop: Arc<AtomicBool>, live: Arc<AtomicU64>, echo: bool) -> JoinHandle<Seen> {
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    thread::spawn(move || {
        let mut seen = Seen::default();
        let (mut buffer, mut last) = (vec![0; 65_536], None::<Instant>);
        loop {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                if stop.load(Relaxed) {
                    return seen;
                }
                continue;
            };
            let now = Instant::now();
            if let Some(last) = last {
                seen.longest_gap = seen.longest_gap.max(now - last);
            }
            last = Some(now);
            if seen.note(u64::from_be_bytes(buffer[..8].try_into().unwrap())) {
                live.store(seen.count, Relaxed);
            }
            if echo {
                // A refusal shows as a number that did not come back.
                _ = socket.send_to(&buffer[..len], from);
            }
        }
    })
}
