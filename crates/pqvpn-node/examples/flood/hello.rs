// SPDX-License-Identifier: MIT OR Apache-2.0
//! ClientHellos of our own nodes, caught before they leave, and their Initials sealed anew for another connection id.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pqvpn_crypto::identity::{Identity, PublicIdentity};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::{Admission, LinkCrypto, Refusal, Side};
use pqvpn_node::link::{Backend, LinkConfig, LinkRecv, LinkSocket, LinkTransmit, Writable};
use rustls::quic::{self, Version};

use crate::Failure;

/// Length of the datagrams of a first flight.
pub(crate) const DATAGRAM: u16 = 1200;
/// Datagrams of a first flight.
const FLIGHT: usize = 3;
/// How long a first flight may take to come out.
const PATIENCE: Duration = Duration::from_secs(5);
/// QUIC version 1.
const VERSION: [u8; 4] = [0, 0, 0, 1];
/// Length of an AEAD tag.
const TAG: usize = 16;

/// A first flight.
pub(crate) struct Hello {
    /// As they would have left.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// The connection id of who says hello.
    pub(crate) scid: Vec<u8>,
    packets: Vec<Packet>,
    suite: quic::Suite,
}

/// An Initial in clear.
struct Packet {
    number: u32,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Anybody;

impl Admission for Anybody {
    fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A socket that keeps what is sent and receives nothing.
#[derive(Debug)]
struct Catch(Mutex<Vec<Vec<u8>>>);

impl Catch {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LinkSocket for Catch {
    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [LinkRecv]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(transmit.contents.to_vec());
        Ok(())
    }

    fn writable(self: Arc<Self>) -> Writable {
        Box::pin(async { Ok(()) })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

/// Makes `count` of them for the node `to` at `at`.
pub(crate) fn make(count: usize, to: PeerId, at: SocketAddr) -> Result<Vec<Hello>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let crypto = Arc::new(LinkCrypto::new(Arc::new(Identity::generate()?), Arc::new(Anybody)));
    let suite = crypto.initial_suite();
    runtime.block_on(async {
        let socket = Arc::new(Catch(Mutex::default()));
        let endpoint = Backend::Noq.endpoint(Arc::clone(&socket) as _, LinkConfig::new(crypto))?;
        let mut hellos = Vec::new();
        while hellos.len() < count {
            let dialing = tokio::spawn(endpoint.connect(at, to, None));
            let caught = tokio::time::timeout(PATIENCE, flight(&socket)).await?;
            dialing.abort();
            // What it says at its end is no part of the next.
            _ = dialing.await;
            tokio::task::yield_now().await;
            socket.take();
            hellos.push(Hello::open(caught, suite)?);
        }
        Ok(hellos)
    })
}

async fn flight(socket: &Catch) -> Vec<Vec<u8>> {
    let mut caught: Vec<Vec<u8>> = Vec::new();
    while caught.len() < FLIGHT {
        caught.extend(socket.take().into_iter().filter(|datagram| datagram.len() == usize::from(DATAGRAM)));
        tokio::task::yield_now().await;
    }
    // Another's last words may have come first.
    let newest = caught.last().map(|last| ids(last).0.to_vec()).unwrap_or_default();
    caught.retain(|datagram| ids(datagram).0 == newest);
    caught
}

/// The connection ids in a long header, to whom and from whom; empty ones where it has none.
pub(crate) fn ids(datagram: &[u8]) -> (&[u8], &[u8]) {
    let cut = |at: usize| {
        let len = usize::from(*datagram.get(at)?);
        datagram.get(at + 1..at + 1 + len)
    };
    let to = cut(5).unwrap_or_default();
    (to, cut(6 + to.len()).unwrap_or_default())
}

/// Reads a variable-length integer (RFC 9000 §16): its value and length.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let len = 1 << (bytes.first()? >> 6);
    let value = bytes.get(..len)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
    Some((value & !(3 << (8 * len - 2)), len))
}

impl Hello {
    fn open(datagrams: Vec<Vec<u8>>, suite: quic::Suite) -> Result<Self, Failure> {
        if datagrams.len() < FLIGHT {
            return Err("a first flight is three datagrams".into());
        }
        let (dcid, scid) = ids(&datagrams[0]);
        let keys = suite.keys(dcid, rustls::Side::Server, Version::V1);
        let scid = scid.to_vec();
        let open = |datagram: &Vec<u8>| open(datagram, &keys).ok_or("an Initial of ours does not open");
        let packets = datagrams.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { datagrams, scid, packets, suite })
    }

    /// The first flight for another connection id with a token, as after a Retry.
    pub(crate) fn seal(&self, dcid: &[u8], token: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let keys = self.suite.keys(dcid, rustls::Side::Client, Version::V1);
        self.packets.iter().map(|packet| self.seal_one(packet, &keys, dcid, token)).collect()
    }

    fn seal_one(&self, packet: &Packet, keys: &quic::Keys, dcid: &[u8], token: &[u8]) -> Result<Vec<u8>, Failure> {
        // A packet number of four bytes.
        let mut datagram = vec![0xc3];
        datagram.extend(VERSION);
        for id in [dcid, &self.scid] {
            datagram.push(u8::try_from(id.len())?);
            datagram.extend(id);
        }
        let long = |length: usize| u16::try_from(length).map(|length| (length | 0x4000).to_be_bytes());
        datagram.extend(long(token.len())?);
        datagram.extend(token);
        datagram.extend(long(4 + packet.payload.len() + TAG)?);
        let at = datagram.len();
        // After those that were sent before the Retry.
        let number = packet.number + 16;
        datagram.extend(number.to_be_bytes());
        let mut payload = packet.payload.clone();
        let tag = keys.local.packet.encrypt_in_place(number.into(), &datagram, &mut payload)?;
        datagram.extend(payload);
        datagram.extend(tag.as_ref());
        let (head, rest) = datagram.split_at_mut(at + 4);
        let (first, number) = head.split_at_mut(at);
        keys.local.header.encrypt_in_place(&rest[..TAG], &mut first[0], number)?;
        Ok(datagram)
    }
}

/// Opens an Initial that fills its datagram.
fn open(datagram: &[u8], keys: &quic::Keys) -> Option<Packet> {
    let (dcid, scid) = ids(datagram);
    let at = 7 + dcid.len() + scid.len();
    let (token, len) = varint(datagram.get(at..)?)?;
    let at = at + len + token;
    let (length, len) = varint(datagram.get(at..)?)?;
    let at = at + len;
    let mut packet = datagram.get(..at + length)?.to_vec();
    let sample = packet.get(at + 4..at + 4 + TAG)?.to_vec();
    let (first, rest) = packet.split_at_mut(1);
    keys.remote.header.decrypt_in_place(&sample, &mut first[0], rest.get_mut(at - 1..at + 3)?).ok()?;
    let number_len = usize::from(first[0] & 3) + 1;
    let number = packet[at..at + number_len].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let (head, payload) = packet.split_at_mut(at + number_len);
    let clear = keys.remote.packet.decrypt_in_place(number.into(), head, payload).ok()?;
    Some(Packet { number, payload: clear.to_vec() })
}
