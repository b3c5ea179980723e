// SPDX-License-Identifier: MIT OR Apache-2.0
//! Round trips of small UDP datagrams between two hosts, from threads in their namespaces.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use pqvpn_lab::topology::Host;
use serde_json::Value;

use super::figures::rounded;

/// Pause between round trips: long enough that every thread on the way has gone to sleep.
const PAUSE: Duration = Duration::from_millis(5);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a datagram, like those of `ping`.
const SIZE: usize = 56;
/// First byte of the datagram that ends the echoing.
const END: u8 = 0xff;

/// Round-trip times in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The `percent`-th percentile, null without samples.
    pub(super) fn percentile(&self, percent: usize) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).map_or(Value::Null, |&ms| rounded(ms))
    }
}

/// Measures `count` round trips to each of two addresses of `two`, turn by turn.
pub(super) fn round_trips(one: &Host, two: &Host, to: [IpAddr; 2], count: u32) -> anyhow::Result<[Samples; 2]> {
    let mut paths = Vec::new();
    let mut echoes = Vec::new();
    for target in to {
        let socket = two.namespace.run(move || UdpSocket::bind(SocketAddr::new(target, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        paths.push(socket.local_addr()?);
        echoes.push(two.namespace.thread("echo", move || echo(&socket))?);
    }
    let pinging = one.namespace.thread("ping", move || ping(&paths, count))?;
    let samples = pinging.join().map_err(|_| anyhow!("the pinging thread panicked"))?;
    for echo in echoes {
        // What went wrong there shows as a missing answer here.
        _ = echo.join();
    }
    let mut samples = samples?.into_iter().map(Samples);
    samples.next().zip(samples.next()).map(|(a, b)| [a, b]).context("two paths were pinged")
}

fn ping(paths: &[SocketAddr], count: u32) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut sockets = Vec::new();
    for path in paths {
        let any: SocketAddr = if path.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        sockets.push((socket, path, Vec::new()));
    }
    let (mut datagram, mut answer) = ([0; SIZE], [0; SIZE]);
    for number in 0..count {
        datagram[1..5].copy_from_slice(&number.to_be_bytes());
        for (socket, path, samples) in &mut sockets {
            thread::sleep(PAUSE);
            let start = Instant::now();
            socket.send(&datagram)?;
            socket.recv(&mut answer).with_context(|| format!("no answer from {path} to datagram {number}"))?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(answer == datagram, "{path} gave another answer than the one to datagram {number}");
        }
    }
    for (socket, ..) in &sockets {
        socket.send(&[END])?;
    }
    Ok(sockets.into_iter().map(|(_, _, samples)| samples).collect())
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
    fn percentiles() {
        let samples = Samples((1..=200).rev().map(f64::from).collect());
        assert_eq!(samples.percentile(50), rounded(101.0));
        assert_eq!(samples.percentile(99), rounded(199.0));
        assert_eq!(samples.percentile(100), rounded(200.0));
        assert_eq!(Samples::default().percentile(50), Value::Null);
    }
}
