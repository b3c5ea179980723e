// SPDX-License-Identifier: MIT OR Apache-2.0
//! Round trips as `ping` measures them: ICMP echoes, which the far kernel answers by itself, so that only the tunnel's
//! threads and the asker wake up.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
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
/// Bytes of an echo, header and all, like those of `ping`.
const SIZE: usize = 64;
/// Room for an answer with its IPv4 header.
const ROOM: usize = SIZE + 60;
/// Type of a request and of its answer (RFC 792, RFC 4443).
const ICMPV4: [u8; 2] = [8, 0];
const ICMPV6: [u8; 2] = [128, 129];

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

/// Whoever asks.
struct Asker {
    /// A raw socket; the standard library's type serves for all that is done with it.
    socket: UdpSocket,
    to: IpAddr,
    ident: u16,
    number: u16,
}

impl Asker {
    fn new(to: IpAddr, patience: Duration) -> anyhow::Result<Self> {
        static IDENTS: AtomicU16 = AtomicU16::new(1);
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = UdpSocket::from(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?);
        socket.connect(SocketAddr::new(to, 0))?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, to, ident: IDENTS.fetch_add(1, Ordering::Relaxed), number: 0 })
    }

    /// One round trip in milliseconds; `None` when no answer came in time. An answer that comes after its time is
    /// taken for none of the later ones.
    fn ask(&mut self) -> anyhow::Result<Option<f64>> {
        self.number = self.number.wrapping_add(1);
        let request = request(self.to, self.ident, self.number);
        let mut answer = [0; ROOM];
        let start = Instant::now();
        self.socket.send(&request)?;
        loop {
            // Whatever else of ICMP comes to this host comes to this socket too.
            let left = PATIENCE.saturating_sub(start.elapsed());
            anyhow::ensure!(!left.is_zero(), "no answer from {} among what comes", self.to);
            match self.socket.recv(&mut answer) {
                Ok(len) if answers(&answer[..len], &request) => return Ok(Some(start.elapsed().as_secs_f64() * 1e3)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("no answer from {}", self.to)),
            }
        }
    }
}

/// An echo request; of ICMPv6 the kernel makes the checksum.
fn request(to: IpAddr, ident: u16, number: u16) -> [u8; SIZE] {
    let mut message = [0x5a; SIZE];
    message[0] = if to.is_ipv4() { ICMPV4[0] } else { ICMPV6[0] };
    message[1..4].fill(0);
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    message[6..8].copy_from_slice(&number.to_be_bytes());
    if to.is_ipv4() {
        let sum: u32 = message.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// Whether what came, with its IP header where that is IPv4's, is the answer to a request.
fn answers(came: &[u8], request: &[u8; SIZE]) -> bool {
    let (message, kind) = if request[0] == ICMPV4[0] {
        let header = came.first().map_or(0, |first| usize::from(first & 0xf) * 4);
        (came.get(header..).unwrap_or_default(), ICMPV4[1])
    } else {
        (came, ICMPV6[1])
    };
    message.len() == SIZE && message[0] == kind && message[4..] == request[4..]
}

/// Waits until an echo to `target` comes back: until then the tunnel may have no address, no peer, no session.
pub(super) fn first(one: &Host, target: IpAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + FIRST_PATIENCE;
    in_thread(one, move || {
        // Without a route yet, sending fails at once.
        while !matches!(Asker::new(target, FIRST_PAUSE).and_then(|mut asker| asker.ask()), Ok(Some(_))) {
            anyhow::ensure!(Instant::now() < deadline, "no answer from {target} within {FIRST_PATIENCE:?}");
            thread::sleep(FIRST_PAUSE);
        }
        Ok(())
    })
}

/// Measures `count` round trips to each of two addresses, turn by turn, with nothing else under way.
pub(super) fn idle(one: &Host, to: [IpAddr; 2], count: u32) -> anyhow::Result<[Samples; 2]> {
    in_thread(one, move || {
        let mut askers = [Asker::new(to[0], PATIENCE)?, Asker::new(to[1], PATIENCE)?];
        let mut samples = [Samples::default(), Samples::default()];
        for _ in 0..count {
            for (asker, samples) in askers.iter_mut().zip(&mut samples) {
                thread::sleep(IDLE_PAUSE);
                let time = asker.ask()?.with_context(|| format!("no answer from {}", asker.to))?;
                samples.times.push(time);
            }
        }
        Ok(samples)
    })
}

/// Measures round trips to `target` beside a transfer, until `span` is over; what nobody answers is counted.
pub(super) fn loaded(one: &Host, target: IpAddr, span: Duration) -> anyhow::Result<Samples> {
    let until = Instant::now() + span;
    in_thread(one, move || {
        let mut asker = Asker::new(target, LOADED_PATIENCE)?;
        let mut samples = Samples::default();
        while Instant::now() < until {
            match asker.ask()? {
                Some(time) => samples.times.push(time),
                None => samples.lost += 1,
            }
            thread::sleep(LOADED_PAUSE);
        }
        Ok(samples)
    })
}

fn in_thread<T: Send + 'static>(
    host: &Host,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    host.namespace.thread("ping", work)?.join().map_err(|_| anyhow!("the pinging thread panicked"))?
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
    fn a_request_sums_to_nothing_and_only_its_own_answer_is_one() {
        let v4: IpAddr = [10, 0, 0, 1].into();
        let asked = request(v4, 7, 9);
        let sum: u64 = asked.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!(sum % 0xffff, 0);
        let answer = |asked: [u8; SIZE]| {
            let mut came = vec![0; 24];
            came[0] = 0x46;
            came.extend(asked);
            (came[24], came[26]) = (ICMPV4[1], 0x11);
            came
        };
        assert!(answers(&answer(asked), &asked));
        assert!(!answers(&answer(request(v4, 7, 8)), &asked), "a late one");
        assert!(!answers(&answer(request(v4, 6, 9)), &asked), "another's");
        let mut own = answer(asked);
        own[24] = ICMPV4[0];
        assert!(!answers(&own, &asked), "the request itself");
        for len in 0..own.len() {
            assert!(!answers(&own[..len], &asked), "cut to {len}");
        }
        let v6 = request([0_u16; 8].into(), 7, 9);
        let mut came = v6;
        came[0] = ICMPV6[1];
        assert!(answers(&came, &v6) && !answers(&v6, &v6));
    }
}
