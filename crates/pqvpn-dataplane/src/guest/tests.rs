// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

const FROM: &str = "192.0.2.7:4433";

fn ring() -> GuestRing {
    GuestRing::new(Arc::new(DropCounters::new()))
}

fn push(ring: &GuestRing, datagram: &[u8]) -> bool {
    ring.push(datagram, FROM.parse().unwrap(), Some("192.0.2.1".parse().unwrap()), 2)
}

fn take(ring: &GuestRing) -> Option<(Vec<u8>, GuestMeta)> {
    let mut buf = vec![0; 65_536];
    let mut meta = [EMPTY_META];
    let mut cx = Context::from_waker(Waker::noop());
    match ring.poll_take(&mut cx, &mut [IoSliceMut::new(&mut buf)], &mut meta) {
        Poll::Ready(Ok(1)) => Some((buf[..meta[0].len].to_vec(), meta[0])),
        Poll::Ready(result) => panic!("{result:?}"),
        Poll::Pending => None,
    }
}

const EMPTY_META: GuestMeta = GuestMeta {
    addr: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    len: 0,
    stride: 0,
    ecn: None,
    dst_ip: None,
};

#[test]
fn datagrams_come_out_in_order_over_many_turns_of_the_ring() {
    let ring = ring();
    let mut expected = VecDeque::new();
    for i in 0..20_000usize {
        let datagram = vec![i.to_le_bytes()[0]; 200 + (i * 37) % 1300];
        if push(&ring, &datagram) {
            expected.push_back(datagram);
        }
        if i % 3 != 0 {
            assert_eq!(take(&ring).map(|(bytes, _)| bytes), expected.pop_front());
        }
    }
    assert!(expected.len() < RING_DATAGRAMS);
    while let Some(want) = expected.pop_front() {
        assert_eq!(take(&ring).unwrap().0, want);
    }
    assert!(take(&ring).is_none());
}

#[test]
fn datagrams_and_bytes_are_bounded() {
    let small = ring();
    assert!((0..RING_DATAGRAMS).all(|_| push(&small, b"x")));
    assert!(!push(&small, b"x"));
    let large = ring();
    let datagram = vec![7; 65_000];
    let fitted = (0..RING_DATAGRAMS).take_while(|_| push(&large, &datagram)).count();
    assert_eq!(fitted, RING_BYTES / datagram.len());
    assert!(lock(&large.ring).bytes.len() <= RING_BYTES);
    assert!(take(&large).is_some() && take(&large).is_some());
    assert!(push(&large, &datagram), "room at the front again");
    assert!(!push(&large, &datagram));
}

#[test]
fn first_packets_leave_room_for_links_and_handshakes_under_way() {
    let ring = ring();
    let (initial, handshake, short) = ([0xc3; 1200], [0xe3; 1200], [0x43; 100]);
    let fill = || (0..RING_DATAGRAMS).take_while(|_| push(&ring, &initial)).count();
    let most = RING_FIRSTS.min(RING_FIRST_BYTES / initial.len());
    assert_eq!(fill(), most);
    assert!(push(&ring, &handshake) && push(&ring, &short), "they have the rest");
    assert!((0..100).all(|_| push(&ring, &short)) && !push(&ring, &initial));
    while take(&ring).is_some() {}
    // Whatever else waits, they have their half.
    assert!((0..RING_FIRSTS).all(|_| push(&ring, &short)));
    assert_eq!(fill(), most);
    while take(&ring).is_some() {}
    let large = vec![0xc3; 60_000];
    assert_eq!((0..100).take_while(|_| push(&ring, &large)).count(), RING_FIRST_BYTES / large.len());
    while take(&ring).is_some() {}
    assert_eq!(fill(), most, "all of it is free again");
}

#[test]
fn addresses_come_as_ipv6() {
    let ring = ring();
    push(&ring, b"a");
    let meta = take(&ring).unwrap().1;
    assert_eq!((meta.addr, meta.ecn), ("[::ffff:192.0.2.7]:4433".parse().unwrap(), Some(2)));
    assert_eq!(meta.dst_ip, Some("::ffff:192.0.2.1".parse().unwrap()));
    let way = WayId(7).address();
    ring.push(b"a", way, None, 0);
    assert_eq!(take(&ring).unwrap().1.addr, way);
}

#[test]
fn a_closed_ring_gives_what_is_left_and_then_an_error() {
    let ring = ring();
    push(&ring, b"last");
    ring.close();
    assert_eq!(take(&ring).unwrap().0, b"last");
    let mut cx = Context::from_waker(Waker::noop());
    let polled = ring.poll_take(&mut cx, &mut [IoSliceMut::new(&mut [0; 9])], &mut [EMPTY_META]);
    assert!(matches!(polled, Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe));
}

#[test]
fn the_waiting_task_is_woken() {
    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let flag = Arc::new(Flag(false.into()));
    let waker = Waker::from(Arc::clone(&flag));
    let ring = ring();
    let mut cx = Context::from_waker(&waker);
    let polled = ring.poll_take(&mut cx, &mut [IoSliceMut::new(&mut [0; 9])], &mut [EMPTY_META]);
    assert!(polled.is_pending());
    push(&ring, b"x");
    assert!(flag.0.load(std::sync::atomic::Ordering::Relaxed));
}
