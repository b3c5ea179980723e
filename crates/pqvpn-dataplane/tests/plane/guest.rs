// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUIC shares the port: its datagrams reach the guest, whoever they travel with.

use std::{
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use pqvpn_dataplane::{DropReason, Guest, GuestMeta, GuestTransmit};
use pqvpn_packet::header::PacketKind;

use crate::{
    harness::{Node, PATIENCE, raw_peer, receive_on, socket},
    packets::{EXPERIMENT, ip, payload, plain},
};

/// A waker that a test thread can wait for.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.bell.notify_all();
    }
}

/// Receives one datagram, waiting for it through the waker.
pub(crate) fn receive(guest: &Guest) -> (Vec<u8>, GuestMeta) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut buf = vec![0; 2048];
    let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let mut meta = [GuestMeta { addr: unspecified, len: 0, stride: 0, ecn: None, dst_ip: None }];
    loop {
        let mut cx = Context::from_waker(&waker);
        match guest.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buf)], &mut meta) {
            Poll::Ready(result) => {
                assert_eq!(result.unwrap(), 1);
                buf.truncate(meta[0].len);
                return (buf, meta[0]);
            }
            Poll::Pending => {
                let rung = bell.rung.lock().unwrap();
                let (mut rung, waited) = bell.bell.wait_timeout_while(rung, PATIENCE, |rung| !*rung).unwrap();
                assert!(!waited.timed_out(), "no datagram came");
                *rung = false;
            }
        }
    }
}

/// The form in which the guest sees an IPv4 address.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

fn transmit(dst: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> GuestTransmit<'_> {
    GuestTransmit { dst, src_ip: None, ecn: Some(1), contents, segment_size }
}

#[test]
fn guests_talk_to_each_other_with_ecn_and_addresses() {
    let (a, b) = (Node::new(), Node::new());
    let datagram = [&[0xc3, 0, 0, 0, 1][..], &payload(1195, 1)].concat();
    a.guest.try_send(&transmit(b.addr, &datagram, None)).unwrap();
    let (bytes, meta) = receive(&b.guest);
    assert_eq!(bytes, datagram);
    assert_eq!((meta.addr, meta.stride, meta.ecn), (mapped(a.addr), 1200, Some(1)));
    assert_eq!(meta.dst_ip, Some(mapped(b.addr).ip()));
    assert_eq!(b.guest.local_addr().unwrap(), mapped(b.addr), "IPv6 although the socket is not");
    assert_eq!(b.guest.clone_fds().unwrap().len(), 1);
}

#[test]
fn one_buffer_may_mix_quic_and_tunnel_packets() {
    let (mut peer, node) = raw_peer();
    let sender = Node::new();
    let inner: Vec<_> = (0..3).map(|i| ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(400, i))).collect();
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for (i, inner) in (1u8..).zip(&inner) {
        let sealed = peer.seal(PacketKind::Data, inner);
        let quic = [&[0x40 | i][..], &payload(sealed.len() - 1, usize::from(i))].concat();
        datagrams.extend([quic, sealed, [0xb9].repeat(datagrams.first().map_or(452, Vec::len))]);
    }
    let len = datagrams[0].len();
    assert!(datagrams.iter().all(|datagram| datagram.len() == len));
    let short = [&[0x41][..], &[7; 20]].concat();
    let contents = [datagrams.concat(), short.clone()].concat();
    sender.guest.try_send(&transmit(node.addr, &contents, Some(len))).unwrap();
    for i in 0..3 {
        assert_eq!(receive(&node.guest).0, datagrams[3 * i]);
        assert_eq!(node.collect(), plain(&inner[i]));
    }
    assert_eq!(receive(&node.guest).0, short, "the last datagram of a buffer may be shorter");
    node.expect_drops(DropReason::Garbage, 3);
    assert_eq!(node.control.drops().total(), 3);
}

#[test]
fn a_guest_that_does_not_read_loses_datagrams_but_the_tunnel_goes_on() {
    let (mut peer, node) = raw_peer();
    let stranger = socket();
    let mut sent = 0;
    while node.drops(DropReason::GuestRingFull) == 0 {
        stranger.send_to(&[0x40; 100], node.addr).unwrap();
        sent += 1;
        assert!(sent < 1_000_000);
    }
    let inner = ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(10, 1));
    peer.send(&inner);
    assert_eq!(node.collect(), plain(&inner));
    assert_eq!(receive(&node.guest).0, [0x40; 100]);
}

#[test]
fn several_datagrams_leave_as_several() {
    let node = Node::new();
    let receiver = socket();
    let contents = [payload(1000, 1), payload(1000, 2), payload(300, 3)].concat();
    node.guest.try_send(&transmit(receiver.local_addr().unwrap(), &contents, Some(1000))).unwrap();
    for chunk in contents.chunks(1000) {
        assert_eq!(receive_on(&receiver), chunk);
    }
    assert!(node.guest.max_gso_segments().get() > 1);
}

#[test]
fn what_the_network_refuses_is_loss_to_the_guest() {
    let node = Node::new();
    // Longer than any loopback MTU: EMSGSIZE.
    let contents = vec![0x40; 65_600];
    let to = node.addr;
    node.guest.try_send(&transmit(to, &contents, None)).unwrap();
    assert_eq!(node.drops(DropReason::GuestSendError), 1);
    let v6 = "[2001:db8::1]:1".parse().unwrap();
    assert!(node.guest.try_send(&transmit(v6, b"x", None)).is_err(), "no socket of that family");
}

#[test]
fn a_source_address_that_is_gone_is_left_to_the_system() {
    let node = Node::new();
    let receiver = socket();
    let contents = payload(500, 1);
    for segment_size in [None, Some(200)] {
        let src_ip = "192.0.2.9".parse().ok();
        let dst = receiver.local_addr().unwrap();
        node.guest.try_send(&GuestTransmit { src_ip, ..transmit(dst, &contents, segment_size) }).unwrap();
        for chunk in contents.chunks(segment_size.unwrap_or(500)) {
            assert_eq!(receive_on(&receiver), chunk);
        }
    }
    assert!(node.guest.max_gso_segments().get() > 1, "that was not about segmentation");
    assert_eq!(node.drops(DropReason::GuestSendError), 0);
}

/// Every address of 127.0.0.0/8 is ours here, as several are of a host with several interfaces.
#[test]
fn a_link_is_answered_from_where_it_was_dialled_also_by_a_stale_address() {
    let (node, receiver) = (Node::new(), socket());
    let (dst, old): (_, IpAddr) = (receiver.local_addr().unwrap(), "127.0.0.7".parse().unwrap());
    node.control.set_stale_sources(vec![old]);
    for first in [0x40, 0xc0] {
        let contents = [first; 100];
        node.guest.try_send(&GuestTransmit { src_ip: Some(old), ..transmit(dst, &contents, None) }).unwrap();
        assert_eq!(receiver.recv_from(&mut [0; 200]).unwrap().1.ip().to_canonical(), old);
    }
}

#[test]
fn after_the_end_the_guest_gets_an_error() {
    let mut node = Node::new();
    node.plane.take().unwrap().shutdown();
    let polled = node.guest.poll_recv(&mut Context::from_waker(Waker::noop()), &mut [], &mut []);
    assert!(matches!(polled, Poll::Ready(Err(e)) if e.kind() == std::io::ErrorKind::BrokenPipe));
}
