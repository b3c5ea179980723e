// SPDX-License-Identifier: MIT OR Apache-2.0
//! Round trips of small UDP datagrams between two hosts, from threads in their namespaces.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use pqvpn_lab::process;
use pqvpn_lab::topology::Host;

/// Pause between idle round trips: long enough that every thread on the way has gone to sleep.
const IDLE_PAUSE: Duration = Duration::from_millis(5);
/// Pause between round trips beside a transfer: few enough not to weigh in it.
const LOADED_PAUSE: Duration = Duration::from_millis(10);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one answer beside a transfer may take before it counts as lost.
const LOADED_PATIENCE: Duration = Duration::from_millis(500);
/// How long a tunnel may take until the first packet passes.
const FIRST_PATIENCE: Duration = Duration::from_secs(20);
/// How often that is tried.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a datagram, like those of `ping`.
const SIZE: usize = 56;
/// First byte of the datagram that ends the echoing.
const END: u8 = 0xff;

/// Round-trip times in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Samples {
    times: Vec<f64>,
    lost: u32,
}

impl Samples {
    /// The `percent`-th percentile, `None` without samples.
    pub(super) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.times.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied()
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    pub(super) fn mean(&self) -> Option<f64> {
        (!self.times.is_empty()).then(|| self.times.iter().sum::<f64>() / self.times.len() as f64)
    }

    /// Share of the datagrams that nobody answered in time, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    pub(super) fn lost_percent(&self) -> f64 {
        f64::from(self.lost) * 100.0 / (self.times.len() as f64 + f64::from(self.lost)).max(1.0)
    }
}

/// Whoever answers, in the far namespace.
struct Echo {
    at: SocketAddr,
    thread: JoinHandle<()>,
}

impl Echo {
    /// Ends when told to, or after `patience` without a datagram.
    fn start(host: &Host, target: IpAddr, patience: Duration) -> anyhow::Result<Self> {
        let socket = host.namespace.run(move || UdpSocket::bind(SocketAddr::new(target, 0)))??;
        socket.set_read_timeout(Some(patience))?;
        let at = socket.local_addr()?;
        Ok(Self { at, thread: host.namespace.thread("echo", move || echo(&socket))? })
    }

    fn finish(self) {
        // What went wrong there shows as a missing answer at the asker.
        _ = self.thread.join();
    }
}

/// Whoever asks.
struct Asker {
    socket: UdpSocket,
    to: SocketAddr,
    number: u32,
}

impl Asker {
    fn new(to: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, to, number: 0 })
    }

    /// One round trip in milliseconds; `None` when no answer came in time. An answer that comes after its time is
    /// taken for none of the later ones.
    fn ask(&mut self) -> anyhow::Result<Option<f64>> {
        let (mut datagram, mut answer) = ([0; SIZE], [0; SIZE]);
        self.number += 1;
        datagram[1..5].copy_from_slice(&self.number.to_be_bytes());
        let start = Instant::now();
        self.socket.send_to(&datagram, self.to)?;
        loop {
            match self.socket.recv(&mut answer) {
                Ok(_) if answer == datagram => return Ok(Some(start.elapsed().as_secs_f64() * 1e3)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("no answer from {}", self.to)),
            }
        }
    }

    fn end(&self) -> anyhow::Result<()> {
        self.socket.send_to(&[END], self.to)?;
        Ok(())
    }
}

/// Waits until a datagram to `target` comes back: until then the tunnel may have no address, no peer, no session.
pub(super) fn first(one: &Host, two: &Host, target: IpAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + FIRST_PATIENCE;
    let start = || Echo::start(two, target, FIRST_PATIENCE).ok();
    let echo = process::wait_until("the address of the far end", FIRST_PATIENCE, start)?;
    let path = echo.at;
    let asking = one.namespace.thread("ping", move || -> anyhow::Result<()> {
        let mut asker = Asker::new(path, FIRST_PAUSE)?;
        // Without a route yet, sending fails at once.
        while !matches!(asker.ask(), Ok(Some(_))) {
            anyhow::ensure!(Instant::now() < deadline, "no answer from {path} within {FIRST_PATIENCE:?}");
            thread::sleep(FIRST_PAUSE);
        }
        asker.end()
    })?;
    let outcome = asking.join().map_err(|_| anyhow!("the pinging thread panicked"))?;
    echo.finish();
    outcome
}

/// Measures `count` round trips to each of two addresses of `two`, turn by turn, with nothing else under way.
pub(super) fn idle(one: &Host, two: &Host, to: [IpAddr; 2], count: u32) -> anyhow::Result<[Samples; 2]> {
    let echoes = [Echo::start(two, to[0], PATIENCE)?, Echo::start(two, to[1], PATIENCE)?];
    let paths = echoes.each_ref().map(|echo| echo.at);
    let asking = one.namespace.thread("ping", move || -> anyhow::Result<_> {
        let mut askers = [Asker::new(paths[0], PATIENCE)?, Asker::new(paths[1], PATIENCE)?];
        let mut samples = [Samples::default(), Samples::default()];
        for _ in 0..count {
            for (asker, samples) in askers.iter_mut().zip(&mut samples) {
                thread::sleep(IDLE_PAUSE);
                let time = asker.ask()?.with_context(|| format!("no answer from {}", asker.to))?;
                samples.times.push(time);
            }
        }
        askers.iter().try_for_each(Asker::end)?;
        Ok(samples)
    })?;
    let samples = asking.join().map_err(|_| anyhow!("the pinging thread panicked"))?;
    echoes.into_iter().for_each(Echo::finish);
    samples
}

/// Measures round trips to `target` beside a transfer, until `span` is over; what nobody answers is counted.
pub(super) fn loaded(one: &Host, two: &Host, target: IpAddr, span: Duration) -> anyhow::Result<Samples> {
    let echo = Echo::start(two, target, PATIENCE)?;
    let (path, until) = (echo.at, Instant::now() + span);
    let asking = one.namespace.thread("ping", move || -> anyhow::Result<_> {
        let mut asker = Asker::new(path, LOADED_PATIENCE)?;
        let mut samples = Samples::default();
        while Instant::now() < until {
            match asker.ask()? {
                Some(time) => samples.times.push(time),
                None => samples.lost += 1,
            }
            thread::sleep(LOADED_PAUSE);
        }
        asker.end()?;
        Ok(samples)
    })?;
    let samples = asking.join().map_err(|_| anyhow!("the pinging thread panicked"))?;
    echo.finish();
    samples
}

/// Sends everything back, until told to end or nothing comes any more.
fn echo(socket: &UdpSocket) {
    let mut datagram = [0; SIZE];
    while let Ok((len @ 1.., from)) = socket.recv_from(&mut datagram) {
        if datagram[0] == END || socket.send_to(&datagram[..len], from).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_mean_and_loss() {
        let samples = Samples { times: (1..=200).rev().map(f64::from).collect(), lost: 50 };
        assert_eq!([50, 99, 100].map(|p| samples.percentile(p)), [Some(101.0), Some(199.0), Some(200.0)]);
        assert_eq!((samples.mean(), samples.lost_percent()), (Some(100.5), 20.0));
        let none = Samples::default();
        assert_eq!((none.percentile(50), none.mean(), none.lost_percent()), (None, None, 0.0));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_another() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut asker = Asker::new(far.local_addr().unwrap(), Duration::from_millis(50)).unwrap();
        assert_eq!(asker.ask().unwrap(), None);
        let mut late = [0; SIZE];
        let (_, from) = far.recv_from(&mut late).unwrap();
        far.send_to(&late, from).unwrap();
        assert_eq!(asker.ask().unwrap(), None);
    }
}
