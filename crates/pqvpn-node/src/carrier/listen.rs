// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where carriers are taken: what the configuration names, opened and closed as a whole.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::PlainPort;
use tokio::{io::unix::AsyncFd, net::TcpListener, sync::watch, task::JoinSet, time::sleep};

use super::{
    Carriers, Ways,
    server::{self, Counts, Server},
    tls, udp,
};
use crate::snapshot::{HealthItem, HealthLevel};

/// A port that is taken, or not allowed, is tried again after so long, then after twice that, and at last so often.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_MOST: Duration = Duration::from_secs(120);

/// What listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket over TLS over TCP.
    Wss,
    /// QUIC over UDP.
    Udp,
}

/// One place to listen at, as `wss://[::]:443` or `udp://[::]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierListen {
    /// What listens.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

impl FromStr for CarrierListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = text.split_once("://").and_then(|(scheme, address)| {
            let transport = match scheme {
                "wss" => Transport::Wss,
                "udp" => Transport::Udp,
                _ => return None,
            };
            Some(Self { transport, address: address.parse().ok()? })
        });
        read.ok_or_else(|| "expected wss://address:port or udp://address:port".to_owned())
    }
}

impl fmt::Display for CarrierListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Wss => "wss",
            Transport::Udp => "udp",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// What listens; ends when dropped.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    tasks: JoinSet<()>,
    _stop: Option<watch::Sender<()>>,
    /// Where it is to listen.
    wanted: Vec<CarrierListen>,
    told: Arc<Told>,
    counts: Arc<Counts>,
}

/// Where it listens, or why it does not.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(CarrierListen, Option<String>)>>);

impl Told {
    fn all(&self) -> MutexGuard<'_, Vec<(CarrierListen, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, place: CarrierListen, failed: Option<&io::Error>) {
        let was = self.all().iter_mut().find(|(known, _)| *known == place).map(|(_, told)| {
            let was_failed = told.is_some();
            *told = failed.map(|error| format!("not listening at {place}: {error}; it is tried again"));
            was_failed
        });
        match (was, failed) {
            (Some(false), Some(error)) => tracing::warn!(%place, %error, "not listening; it is tried again"),
            (Some(true), None) => tracing::info!(%place, "listening now"),
            (_, _) => {}
        }
    }
}

/// An open port.
enum Opened {
    Wss(TcpListener, Arc<Server>),
    Udp(AsyncFd<PlainPort>),
}

/// What a port is served with.
struct Opener {
    own: PeerId,
    place: CarrierListen,
    ways: Arc<Ways>,
    counts: Arc<Counts>,
    stopped: watch::Receiver<()>,
}

impl Opener {
    fn open(&self) -> io::Result<Opened> {
        let ways = Arc::clone(&self.ways);
        Ok(match self.place.transport {
            Transport::Wss => {
                let listener = on_either_family(self.place.address, server::listen)?;
                let tls = tls::server().map_err(io::Error::other)?;
                let server = Server::new(self.own, tls, ways, Arc::clone(&self.counts), self.stopped.clone());
                Opened::Wss(listener, server)
            }
            Transport::Udp => Opened::Udp(on_either_family(self.place.address, udp::listen)?),
        })
    }

    /// Serves the port, as soon as it can be had.
    async fn serve(self, first: io::Result<Opened>, told: Arc<Told>) {
        let (mut tried, mut pause) = (first, AGAIN);
        let opened = loop {
            match tried {
                Ok(opened) => break opened,
                Err(error) => told.tell(self.place, Some(&error)),
            }
            sleep(pause).await;
            pause = (2 * pause).min(AGAIN_MOST);
            tried = self.open();
        };
        told.tell(self.place, None);
        match opened {
            Opened::Wss(listener, server) => server::accept_all(server, listener).await,
            Opened::Udp(socket) => udp::receive_all(socket, self.ways, self.stopped).await,
        }
    }
}

impl Listening {
    /// Listens where it is wanted: what does already goes on, anything else ends first, whose ports may be wanted again.
    pub(crate) async fn change(&mut self, carriers: &Carriers, own: PeerId, wanted: &[CarrierListen]) {
        if self.wanted == wanted {
            return;
        }
        std::mem::take(self).close().await;
        *self = Self::open(carriers, own, wanted);
    }

    /// Ends, with every connection; the ports are free afterwards.
    pub(crate) async fn close(mut self) {
        self._stop = None;
        self.tasks.shutdown().await;
    }

    /// Opens what can be opened now, and the rest as soon as it can be: a port that is taken, or not allowed, is told.
    pub(crate) fn open(carriers: &Carriers, own: PeerId, wanted: &[CarrierListen]) -> Self {
        let (stop, thread) = (watch::Sender::new(()), carriers.thread());
        let mut listening = Self { wanted: wanted.to_vec(), ..Self::default() };
        let _on_its_runtime = thread.runtime().enter();
        for place in wanted.iter().copied() {
            let (ways, counts) = (Arc::clone(carriers.ways()), Arc::clone(&listening.counts));
            let opener = Opener { own, place, ways, counts, stopped: stop.subscribe() };
            let (first, told) = (opener.open(), Arc::clone(&listening.told));
            told.all().push((place, None));
            if let Err(error) = &first {
                told.tell(place, Some(error));
            }
            listening.tasks.spawn_on(opener.serve(first, told), thread.runtime());
        }
        listening._stop = Some(stop);
        listening
    }

    /// Where it listens.
    pub(crate) fn at(&self) -> Vec<CarrierListen> {
        self.told.all().iter().filter(|(_, failed)| failed.is_none()).map(|(place, _)| *place).collect()
    }

    /// What did not work, for people.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        let item = |text: &String| HealthItem { level: HealthLevel::Info, code: "carrier-listen", text: text.clone() };
        self.told.all().iter().filter_map(|(_, failed)| failed.as_ref().map(item)).collect()
    }

    /// Connections closed at once, handshakes that came to nothing, requests that got a page.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let Counts { refused, broken, strangers } = &*self.counts;
        [refused, broken, strangers].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A host without IPv6 listens on IPv4 alone.
fn on_either_family<S>(at: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<S>) -> io::Result<S> {
    open(at).or_else(|error| {
        let no_family = matches!(error.raw_os_error(), Some(code) if code == nix::libc::EAFNOSUPPORT);
        if no_family && at.is_ipv6() && at.ip().is_unspecified() {
            return open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port())));
        }
        Err(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_listens_already_goes_on_and_ports_are_let_go_of_before_they_are_taken_again() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let places = [Transport::Wss, Transport::Udp].map(|transport| CarrierListen { transport, address: free });
        let carriers = Carriers::of_tests(Arc::new(super::super::fake::Nowhere::default()));
        let (own, mut listening) = (PeerId::from_bytes([7; 32]), Listening::default());
        listening.change(&carriers, own, &places).await;
        assert_eq!((listening.health().len(), &listening.at()[..]), (0, &places[..]));
        let counts = Arc::clone(&listening.counts);
        listening.change(&carriers, own, &places).await;
        assert!(Arc::ptr_eq(&counts, &listening.counts), "the same that listened before");
        for wanted in [&places[..1], &places, &[], &places] {
            listening.change(&carriers, own, wanted).await;
            assert_eq!((listening.health().len(), &listening.at()[..]), (0, wanted));
        }
        listening.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_taken_is_told_and_taken_as_soon_as_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = CarrierListen { transport: Transport::Wss, address: taken.local_addr().unwrap() };
        let carriers = Carriers::of_tests(Arc::new(super::super::fake::Nowhere::default()));
        let mut listening = Listening::open(&carriers, PeerId::from_bytes([7; 32]), &[place]);
        for _ in 0..2 {
            assert_eq!((listening.health().len(), listening.at()), (1, vec![]));
            assert!(listening.health()[0].text.contains("tried again"), "{:?}", listening.health());
            sleep(3 * AGAIN_MOST).await;
        }
        drop(taken);
        sleep(AGAIN_MOST).await;
        assert_eq!((listening.health().len(), listening.at()), (0, vec![place]));
        listening.change(&carriers, PeerId::from_bytes([7; 32]), &[]).await;
        assert!(std::net::TcpListener::bind(place.address).is_ok(), "it is let go of");
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["wss://[::]:443", "udp://0.0.0.0:443"] {
            assert_eq!(text.parse::<CarrierListen>().unwrap().to_string(), text);
        }
        for bad in ["", "443", "[::]:443", "tcp://[::]:443", "wss://host:443", "wss://[::]"] {
            assert!(bad.parse::<CarrierListen>().is_err(), "{bad}");
        }
    }
}
