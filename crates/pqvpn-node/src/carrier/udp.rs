// SPDX-License-Identifier: MIT OR Apache-2.0
//! UDP port 443, beside the data plane's own sockets: each address that is heard there is a carried way, so that answers
//! leave by this port.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use pqvpn_dataplane::{never_fragment, way::CarrierSink};
use tokio::{net::UdpSocket, sync::watch, time::sleep};

use super::{
    Place, Ways,
    ladder::Rung,
    limits::{Limits, Refused},
    queue::Sink,
    server::canonical,
    ways::OpenWay,
};
use crate::clock;

/// The system's word for a datagram that is too long (`EMSGSIZE`).
const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
/// The first packet of a link is padded to so much (RFC 9000 14.1).
const FIRST: usize = 1200;
/// Bits of its first byte: a long header.
const LONG_HEADER: u8 = 0xc0;
/// New ones of all sources together: each changes the tables of the packet threads, and sources can be forged. So many at
/// once, then one in every such time.
const NEW_BURST: u32 = 50;
const NEW_EVERY: Duration = Duration::from_millis(20);
/// Who is not authenticated yet goes after so long without a packet, who is after so long.
const FORGET_NEW: Duration = Duration::from_secs(15);
const FORGET: Duration = Duration::from_secs(180);
/// How often it is looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// Opens the socket.
///
/// # Errors
/// The system refuses.
pub(super) fn listen(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    never_fragment(&socket)?;
    UdpSocket::from_std(socket)
}

/// Sends what leaves one of the ways.
struct Port {
    /// Not held: a table of the packet threads that is out of use must not keep the port.
    socket: Weak<UdpSocket>,
    to: SocketAddr,
}

impl CarrierSink for Port {
    fn send(&self, datagram: &[u8]) -> bool {
        // A refusal of the network (ICMP) is for whoever sends next and says nothing of this datagram; one for its length does.
        let Some(socket) = self.socket.upgrade() else { return false };
        match socket.try_send_to(datagram, self.to) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(TOO_LONG),
        }
    }
}

struct Heard<W> {
    way: W,
    last: Instant,
}

/// Who was heard: pure, time is an argument.
struct Table<W> {
    heard: HashMap<SocketAddr, Heard<W>>,
    limits: Limits,
    /// When all of the burst of new ones is allowed again.
    busy_until: Option<Instant>,
}

impl<W> Default for Table<W> {
    fn default() -> Self {
        Self { heard: HashMap::new(), limits: Limits::default(), busy_until: None }
    }
}

impl<W> Table<W> {
    /// The way of whoever sent a datagram: the one there is, or for the first packet of a link what `open` makes.
    /// `is_known`: whether somebody authenticated uses a way.
    fn way(
        &mut self,
        now: Instant,
        (from, datagram): (SocketAddr, &[u8]),
        is_known: impl Fn(&W) -> bool,
        open: impl FnOnce() -> Option<W>,
    ) -> Option<&W> {
        if !self.heard.contains_key(&from) {
            let is_first =
                datagram.len() >= FIRST && datagram.first().is_some_and(|byte| byte & LONG_HEADER == LONG_HEADER);
            let busy_until = self.busy_until.unwrap_or(now).max(now);
            if !is_first || busy_until > now + NEW_EVERY * (NEW_BURST - 1) || !self.admits(now, from, is_known) {
                return None;
            }
            self.busy_until = Some(busy_until + NEW_EVERY);
            let Some(way) = open() else {
                self.limits.leave(from.ip());
                return None;
            };
            self.heard.insert(from, Heard { way, last: now });
        }
        let heard = self.heard.get_mut(&from)?;
        heard.last = now;
        Some(&heard.way)
    }

    /// Sources can be forged: of all that are too many, one goes that nobody authenticated uses.
    fn admits(&mut self, now: Instant, from: SocketAddr, is_known: impl Fn(&W) -> bool) -> bool {
        match self.limits.enter(now, from.ip()) {
            Ok(()) => true,
            Err(Refused::Each | Refused::Rate | Refused::Sources) => false,
            Err(Refused::All) => {
                let new = self.heard.iter().filter(|(_, heard)| !is_known(&heard.way));
                let oldest = new.min_by_key(|(_, heard)| heard.last).map(|(from, _)| *from);
                oldest.is_some_and(|oldest| {
                    self.forget(oldest);
                    self.limits.enter(now, from.ip()).is_ok()
                })
            }
        }
    }

    fn forget(&mut self, from: SocketAddr) {
        if self.heard.remove(&from).is_some() {
            self.limits.leave(from.ip());
        }
    }

    fn sweep(&mut self, now: Instant, is_known: impl Fn(&W) -> bool) {
        let over = |heard: &Heard<W>| {
            let lasts = if is_known(&heard.way) { FORGET } else { FORGET_NEW };
            now.saturating_duration_since(heard.last) >= lasts
        };
        let over: Vec<SocketAddr> = self.heard.iter().filter(|(_, heard)| over(heard)).map(|(from, _)| *from).collect();
        over.into_iter().for_each(|from| self.forget(from));
    }
}

/// Takes datagrams until the server stops.
pub(super) async fn receive_all(socket: UdpSocket, ways: Arc<Ways>, mut stop: watch::Receiver<()>) {
    let socket = Arc::new(socket);
    let table: Mutex<Table<OpenWay>> = Mutex::default();
    let lock = || table.lock().unwrap_or_else(PoisonError::into_inner);
    let receive = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // What a host we sent to says by ICMP.
                    tracing::trace!(%error, "receiving on the carriers' port");
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let Some(datagram) = buffer.get(..len) else { continue };
            let (mut table, now) = (lock(), clock::now());
            let way = table.way(
                now,
                (from, datagram),
                |way| way.is_proved(now),
                || {
                    let place = Place { rung: Rung::Quic, at: canonical(from) };
                    let port = Port { socket: Arc::downgrade(&socket), to: from };
                    ways.open_by(place, Arc::new(port), Arc::new(Sink::default()))
                },
            );
            if let Some(way) = way {
                ways.plane().inject(way.id, &[datagram]);
            }
        }
    };
    let sweep = async {
        loop {
            sleep(SWEEP).await;
            let now = clock::now();
            ways.look_at_links(now);
            lock().sweep(now, |way| way.is_proved(now));
        }
    };
    tokio::select! {
        () = receive => {}
        () = sweep => {}
        _ = stop.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::limits::{MAX_ALL, MAX_EACH},
        *,
    };

    fn from(host: u32, port: u16) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from_bits(host), port))
    }

    const fn nobody<W>(_: &W) -> bool {
        false
    }

    fn first() -> Vec<u8> {
        vec![0xc3; FIRST]
    }

    #[test]
    fn only_the_first_packet_of_a_link_makes_a_way() {
        let (mut table, now) = (Table::default(), Instant::now());
        let mut made = 0;
        let mut hear = |from, datagram: &[u8]| {
            let way = table.way(now, (from, datagram), nobody, || {
                made += 1;
                Some(made)
            });
            way.copied()
        };
        for bad in [&[0xc3; FIRST - 1][..], &[0x43; FIRST], &[0x24; 1400], &[]] {
            assert_eq!(hear(from(1, 1), bad), None);
        }
        assert_eq!(hear(from(1, 1), &first()), Some(1));
        assert_eq!(hear(from(1, 1), b"any"), Some(1), "one that is known may send anything");
        assert_eq!(hear(from(1, 2), &first()), Some(2));
    }

    #[test]
    fn forged_sources_are_bounded_and_put_nobody_out_who_is_authenticated() {
        let (mut table, now) = (Table::default(), Instant::now());
        let is_known = |way: &SocketAddr| *way == from(1, 1);
        let mut hear = |ms: u64, at: SocketAddr| {
            table.way(now + Duration::from_millis(ms), (at, &first()), is_known, || Some(at)).copied()
        };
        hear(0, from(1, 1));
        // One that only sends much, as anybody can from a forged address.
        for _ in 0..99 {
            hear(1, from(2, 2));
        }
        for host in 0..20_000 {
            hear(u64::from(host) * 20 + 20, from(1000 + host, 1));
        }
        assert_eq!(table.heard.len(), MAX_ALL);
        assert!(table.heard.contains_key(&from(1, 1)), "who has a link stays");
        assert!(!table.heard.contains_key(&from(2, 2)), "who only sends makes room");
        assert!(table.heard.contains_key(&from(20_999, 1)), "the newest has its chance");
        for port in 0..500 {
            let later = now + Duration::from_secs(1000 + u64::from(port));
            table.way(later, (from(7, port), &first()), is_known, || Some(from(7, port)));
        }
        assert_eq!(
            table.heard.keys().filter(|at| **at != from(7, 0) && at.ip() == from(7, 0).ip()).count(),
            MAX_EACH - 1
        );
    }

    #[test]
    fn the_tables_of_the_packet_threads_change_seldom_whatever_comes() {
        let (mut table, now, mut made) = (Table::default(), Instant::now(), 0);
        for host in 0..10_000 {
            let at = now + Duration::from_micros(u64::from(host) * 100);
            table.way(at, (from(host, 1), &first()), nobody, || {
                made += 1;
                Some(())
            });
        }
        assert!(made <= 101, "{made} in a second");
    }

    #[test]
    fn who_falls_silent_is_forgotten_and_one_with_a_link_later() {
        let (mut table, now) = (Table::default(), Instant::now());
        let is_known = |way: &u32| *way == 2;
        table.way(now, (from(1, 1), &first()), is_known, || Some(1));
        table.way(now, (from(2, 2), &first()), is_known, || Some(2));
        table.sweep(now + FORGET_NEW, is_known);
        assert_eq!(table.heard.keys().copied().collect::<Vec<_>>(), [from(2, 2)]);
        table.sweep(now + FORGET, is_known);
        assert!(table.heard.is_empty());
        assert_eq!(table.limits.open(), 0);
    }
}
