// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered datagrams that go through the tunnel and come back, without a pause, and when each did.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pqvpn_lab::netns::Namespace;

/// Time between two datagrams.
pub(super) const PACE: Duration = Duration::from_millis(20);
/// How often a waiting thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Echo (RFC 862).
const PORT: u16 = 7;

/// When a datagram was sent and when it was back, since the start of the stream.
#[derive(Debug, Clone, Copy)]
struct Echo {
    sent: Duration,
    back: Duration,
}

/// The stream; it ends when dropped.
pub(super) struct Stream {
    start: Instant,
    echoes: Arc<Mutex<Vec<Echo>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Sends from one namespace to an address in another, whose kernel's answer comes from a thread there.
    pub(super) fn start(from: &Namespace, to: &Namespace, target: IpAddr) -> anyhow::Result<Self> {
        let mirror = to.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let sender = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let receiver = sender.try_clone()?;
        for socket in [&mirror, &receiver] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let (start, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let echoes = Arc::new(Mutex::new(Vec::new()));
        let wanted = || {
            let stop = Arc::clone(&stop);
            move || !stop.load(Ordering::Relaxed)
        };
        let (wanted_mirror, wanted_sender, wanted_receiver) = (wanted(), wanted(), wanted());
        let log = Arc::clone(&echoes);
        let target = SocketAddr::new(target, PORT);
        let threads = vec![
            thread::spawn(move || reflect(&mirror, wanted_mirror)),
            thread::spawn(move || send(&sender, target, start, wanted_sender)),
            thread::spawn(move || receive(&receiver, start, &log, wanted_receiver)),
        ];
        Ok(Self { start, echoes, stop, threads })
    }

    /// The time on the stream's clock.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether the stream flows, and has done so without a pause longer than `most` for `span`.
    pub(super) fn is_steady(&self, span: Duration, most: Duration) -> bool {
        let now = self.now();
        let Some(since) = now.checked_sub(span) else { return false };
        is_steady(&self.echoes.lock().unwrap_or_else(PoisonError::into_inner), since, now, most)
    }

    /// The longest time after `since`, or just before it, in which nothing came back.
    pub(super) fn longest_gap(&self, since: Duration) -> Duration {
        longest_gap(&self.echoes.lock().unwrap_or_else(PoisonError::into_inner), since, self.now())
    }

    /// How long after `since` the first datagram came back that was sent after it.
    pub(super) fn first_after(&self, since: Duration) -> Option<Duration> {
        first_after(&self.echoes.lock().unwrap_or_else(PoisonError::into_inner), since)
    }

    /// Forgets what came back so far but the newest.
    pub(super) fn forget(&self) {
        let mut echoes = self.echoes.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = echoes.pop();
        echoes.clear();
        echoes.extend(newest);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it could have told is in the log.
            _ = thread.join();
        }
    }
}

fn reflect(socket: &UdpSocket, wanted: impl Fn() -> bool) {
    let mut buffer = [0; 64];
    while wanted() {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // No route while the tunnel is away: the next one may find it.
            _ = socket.send_to(&buffer[..len], from);
        }
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, start: Instant, wanted: impl Fn() -> bool) {
    let mut next = start;
    while wanted() {
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        // As above.
        _ = socket.send_to(&micros.to_be_bytes(), target);
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, start: Instant, log: &Mutex<Vec<Echo>>, wanted: impl Fn() -> bool) {
    let mut buffer = [0; 8];
    while wanted() {
        if let Ok(8) = socket.recv(&mut buffer) {
            let echo = Echo { sent: Duration::from_micros(u64::from_be_bytes(buffer)), back: start.elapsed() };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(echo);
        }
    }
}

/// Echoes are in the order they came back.
fn longest_gap(echoes: &[Echo], since: Duration, now: Duration) -> Duration {
    let before = echoes.iter().rev().find(|echo| echo.back <= since).map_or(since, |echo| echo.back);
    let after = echoes.iter().map(|echo| echo.back).filter(|back| *back > since);
    let mut last = before;
    let mut longest = Duration::ZERO;
    for back in after.chain([now.max(since)]) {
        longest = longest.max(back.saturating_sub(last));
        last = back;
    }
    longest
}

fn is_steady(echoes: &[Echo], since: Duration, now: Duration, most: Duration) -> bool {
    echoes.iter().any(|echo| echo.back >= since) && longest_gap(echoes, since, now) <= most
}

fn first_after(echoes: &[Echo], since: Duration) -> Option<Duration> {
    echoes.iter().find(|echo| echo.sent >= since).map(|echo| echo.back.saturating_sub(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Echoes 20 ms apart from 0 to 200 and from 1000 to 1200 ms.
    fn broken() -> Vec<Echo> {
        let times = (0..=10).chain(50..=60).map(|index| index * 20);
        times.map(|at| Echo { sent: ms(at), back: ms(at + 1) }).collect()
    }

    #[test]
    fn the_gap_counts_from_the_last_before_the_event() {
        assert_eq!(longest_gap(&broken(), ms(210), ms(1201)), ms(800));
        assert_eq!(longest_gap(&broken(), ms(100), ms(1201)), ms(800));
        assert_eq!(longest_gap(&broken(), ms(1100), ms(1201)), ms(20));
        assert_eq!(longest_gap(&[], ms(100), ms(1200)), ms(1100));
    }

    #[test]
    fn a_gap_that_has_not_ended_counts_so_far() {
        assert_eq!(longest_gap(&broken(), ms(1210), ms(5000)), ms(3799));
    }

    #[test]
    fn steady_means_no_gap_and_something() {
        assert!(is_steady(&broken(), ms(1050), ms(1201), ms(100)));
        assert!(!is_steady(&broken(), ms(900), ms(1201), ms(100)));
        assert!(!is_steady(&broken(), ms(1250), ms(1260), ms(100)));
        assert!(!is_steady(&[], ms(0), ms(10), ms(100)));
    }

    #[test]
    fn what_was_sent_before_does_not_count_as_first_after() {
        assert_eq!(first_after(&broken(), ms(995)), Some(ms(6)));
        let late = [Echo { sent: ms(10), back: ms(900) }, Echo { sent: ms(850), back: ms(950) }];
        assert_eq!(first_after(&late, ms(800)), Some(ms(150)));
        assert_eq!(first_after(&broken(), ms(1300)), None);
    }
}
