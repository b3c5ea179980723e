// SPDX-License-Identifier: MIT OR Apache-2.0
//! A steady stream of small datagrams from one host to several, and when each last got one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pqvpn_lab::netns::Namespace;

/// Time between two datagrams to one host.
const PACE: Duration = Duration::from_millis(10);
/// How often a receiver looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Discard (RFC 863).
const PORT: u16 = 9;

/// A receiver; it ends when dropped.
pub(super) struct Receiver {
    start: Instant,
    /// Microseconds after `start` of the newest datagram; 0 for none.
    newest: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens in a namespace, on every address it has or will have.
    pub(super) fn listen(namespace: &Namespace) -> anyhow::Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))??;
        socket.set_read_timeout(Some(LOOK))?;
        let (newest, count, stop) = (Arc::default(), Arc::default(), Arc::default());
        let start = Instant::now();
        let (shared_newest, shared_count, shared_stop) =
            (Arc::clone(&newest), Arc::clone(&count), Arc::<AtomicBool>::clone(&stop));
        let thread = thread::spawn(move || {
            let (newest, count): (Arc<AtomicU64>, Arc<AtomicU64>) = (shared_newest, shared_count);
            let mut buffer = [0; 64];
            while !shared_stop.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                    newest.store(micros.max(1), Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { start, newest, count, stop, thread: Some(thread) })
    }

    /// When the newest datagram came.
    pub(super) fn newest(&self) -> Option<Instant> {
        let micros = self.newest.load(Ordering::Relaxed);
        (micros > 0).then(|| self.start + Duration::from_micros(micros))
    }

    /// How many came.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked in a way that matters any more.
            _ = thread.join();
        }
    }
}

/// A sender; it ends when dropped.
pub(super) struct Sender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Sends to all `targets` from a namespace, over and over; what cannot be sent is tried again.
    pub(super) fn start(namespace: &Namespace, targets: Vec<IpAddr>) -> anyhow::Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut number = 0_u64;
            while !shared.load(Ordering::Relaxed) {
                number += 1;
                for target in &targets {
                    // No route while the tunnel is away: the next one may find it.
                    _ = socket.send_to(&number.to_be_bytes(), SocketAddr::new(*target, PORT));
                }
                thread::sleep(PACE);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // As above.
            _ = thread.join();
        }
    }
}
