// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where carriers are taken: what the configuration names, opened and closed as a whole.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, atomic::Ordering},
};

use pqvpn_crypto::peer_id::PeerId;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Carriers,
    server::{self, Counts, Server},
    tls, udp,
};
use crate::snapshot::{HealthItem, HealthLevel};

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
    /// Where it listens.
    pub(crate) at: Vec<CarrierListen>,
    counts: Arc<Counts>,
    failed: Vec<String>,
}

impl Listening {
    /// Listens where it is wanted: what does already goes on, anything else ends first, whose ports may be wanted again.
    pub(crate) async fn change(&mut self, carriers: &Carriers, own: PeerId, wanted: &[CarrierListen]) {
        if self.failed.is_empty() && self.at == wanted {
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

    /// Opens what can be opened: a port that is taken, or not allowed, is told and no more.
    pub(crate) fn open(carriers: &Carriers, own: PeerId, wanted: &[CarrierListen]) -> Self {
        let stop = watch::Sender::new(());
        let mut listening = Self::default();
        for place in wanted {
            if let Err(error) = listening.add(carriers, own, *place, &stop) {
                tracing::warn!(%place, %error, "not listening");
                listening.failed.push(format!("not listening at {place}: {error}"));
            }
        }
        listening._stop = Some(stop);
        listening
    }

    fn add(
        &mut self,
        carriers: &Carriers,
        own: PeerId,
        place: CarrierListen,
        stop: &watch::Sender<()>,
    ) -> io::Result<()> {
        let (ways, stopped) = (Arc::clone(carriers.ways()), stop.subscribe());
        match place.transport {
            Transport::Wss => {
                let listener = on_either_family(place.address, server::listen)?;
                let tls = tls::server().map_err(io::Error::other)?;
                let server = Server::new(own, tls, ways, Arc::clone(&self.counts), stopped);
                self.tasks.spawn(server::accept_all(server, listener));
            }
            Transport::Udp => {
                let socket = on_either_family(place.address, udp::listen)?;
                self.tasks.spawn(udp::receive_all(socket, ways, stopped));
            }
        }
        self.at.push(place);
        Ok(())
    }

    /// What did not work, for people.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        let item = |text: &String| HealthItem { level: HealthLevel::Info, code: "carrier-listen", text: text.clone() };
        self.failed.iter().map(item).collect()
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
        assert_eq!((&listening.failed[..], &listening.at[..]), (&[][..], &places[..]));
        let counts = Arc::clone(&listening.counts);
        listening.change(&carriers, own, &places).await;
        assert!(Arc::ptr_eq(&counts, &listening.counts), "the same that listened before");
        for wanted in [&places[..1], &places, &[], &places] {
            listening.change(&carriers, own, wanted).await;
            assert_eq!((&listening.failed[..], &listening.at[..]), (&[][..], wanted));
        }
        listening.close().await;
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
