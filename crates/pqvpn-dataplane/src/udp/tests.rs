// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending and receiving over the loopback interface, with and without offloads.

use super::{batch::Sent, *};

fn sockets(binds: &[&str]) -> Sockets {
    Sockets::new(binds.iter().map(|bind| UdpSocket::bind(bind).unwrap()).collect()).unwrap()
}

fn addr(sockets: &Sockets) -> SocketAddr {
    sockets.local_addr().unwrap()
}

/// Writes datagrams of the given lengths, each filled with its number.
fn fill(batch: &mut SendBatch, dst: SocketAddr, src: Option<IpAddr>, lens: &[usize]) {
    for (i, &len) in lens.iter().enumerate() {
        batch.room(len).unwrap().fill(i.to_le_bytes()[0]);
        batch.commit(dst, src, len);
    }
}

/// Receives until `count` datagrams are there: length, first byte, meta.
fn receive(sockets: &Sockets, count: usize) -> Vec<(usize, u8, RecvMeta)> {
    let mut batch = RecvBatch::new();
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        let mut waited = [Waited::readable(sockets.fixed()[0].fd())];
        wait(&mut waited, 20_000).unwrap();
        assert!(waited[0].ready, "only {} of {count} came", datagrams.len());
        let Ok(received) = batch.receive(sockets.fixed()[0].fd()) else { continue };
        for i in 0..received {
            let meta = batch.meta(i).unwrap();
            let bytes = &batch.storage()[i * SLOT_LEN..i * SLOT_LEN + meta.len];
            datagrams.extend(bytes.chunks(meta.stride.max(1)).map(|d| (d.len(), d[0], meta)));
        }
    }
    datagrams
}

#[test]
fn runs_keep_order_and_boundaries() {
    for binds in [["127.0.0.1:0", "127.0.0.1:0"], ["[::1]:0", "[::1]:0"]] {
        let (a, b) = (sockets(&binds[..1]), sockets(&binds[1..]));
        let lens = [100, 100, 100, 60, 100, 1400, 1400, 1, 1400, 1399];
        let mut batch = SendBatch::new(65_536);
        fill(&mut batch, addr(&b), None, &lens);
        let sent = batch.flush(&a, 0);
        assert_eq!((sent.failed, batch.pending()), (0, 0));
        let got = receive(&b, lens.len());
        for (i, ((len, first, meta), want)) in got.iter().zip(lens).enumerate() {
            assert_eq!((*len, usize::from(*first)), (want, i));
            assert_eq!((meta.addr, meta.local), (addr(&a), Some(addr(&b).ip())));
        }
    }
}

#[test]
fn long_runs_are_split_where_the_kernel_wants_it() {
    let (a, b) = (sockets(&["127.0.0.1:0"]), sockets(&["127.0.0.1:0"]));
    let mut batch = SendBatch::new(192 * 1024);
    let lens = [vec![1452; 100], vec![40; 130]].concat();
    fill(&mut batch, addr(&b), None, &lens);
    assert_eq!(batch.flush(&a, 0).failed, 0);
    let got = receive(&b, lens.len());
    assert!(got.iter().zip(&lens).all(|((len, ..), want)| len == want));
}

#[test]
fn without_segmentation_the_same_datagrams_leave_one_by_one() {
    let (a, b) = (sockets(&["127.0.0.1:0"]), sockets(&["127.0.0.1:0"]));
    a.fixed()[0].give_up_gso(addr(&b), &io::Error::from_raw_os_error(libc::EIO));
    assert!(!a.fixed()[0].gso(addr(&b)));
    let lens = [500, 500, 500, 20, 500];
    let mut batch = SendBatch::new(65_536);
    fill(&mut batch, addr(&b), None, &lens);
    assert_eq!(batch.flush(&a, 0).failed, 0);
    let got = receive(&b, lens.len());
    assert!(got.iter().zip(lens).all(|((len, ..), want)| *len == want));
}

#[test]
fn a_refused_source_address_is_left_to_the_system_and_told() {
    let (a, b) = (sockets(&["127.0.0.1:0"]), sockets(&["127.0.0.1:0"]));
    let mut batch = SendBatch::new(65_536);
    let foreign = "192.0.2.1".parse().ok();
    fill(&mut batch, addr(&b), foreign, &[100, 100, 30]);
    let sent = batch.flush(&a, 0);
    assert_eq!((sent.failed, sent.source_refused), (0, vec![addr(&b)]));
    assert_eq!(receive(&b, 3).len(), 3);
    a.fixed()[0].send_one(addr(&b), foreign, b"x").unwrap();
    assert_eq!(receive(&b, 1)[0].0, 1);
}

#[test]
fn what_one_destination_refuses_does_not_hold_up_the_others() {
    let (a, b) = (sockets(&["127.0.0.1:0"]), sockets(&["127.0.0.1:0"]));
    let mut batch = SendBatch::new(192 * 1024);
    fill(&mut batch, addr(&b), None, &[100]);
    // Broadcast without the socket's consent (EACCES), a datagram too long, an address family without socket.
    fill(&mut batch, "255.255.255.255:9".parse().unwrap(), None, &[100, 100, 40]);
    fill(&mut batch, addr(&b), None, &[65_530]);
    fill(&mut batch, "[2001:db8::1]:9".parse().unwrap(), None, &[100, 100]);
    fill(&mut batch, addr(&b), None, &[77]);
    assert_eq!(batch.flush(&a, 0).failed, 3 + 1 + 2);
    let got: Vec<_> = receive(&b, 2).iter().map(|(len, ..)| *len).collect();
    assert_eq!(got, [100, 77]);
    assert!(!a.fixed()[0].uncut.any.load(Ordering::Relaxed), "none of that was about segmentation");
}

#[test]
fn a_destination_that_takes_no_segmentation_is_no_other_and_is_tried_again() {
    let (uncut, start) = (Uncut::default(), Instant::now());
    let [there, elsewhere] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let holds = |ip, seconds| uncut.holds(ip, || start + Duration::from_secs(seconds));
    assert!(!holds(there, 0));
    uncut.add(there, start);
    assert_eq!([holds(there, 59), holds(elsewhere, 59), holds(there, 60)], [true, false, false]);
    for host in 0..=MAX_UNCUT {
        uncut.add(IpAddr::from([10, 0, 0, host as u8]), start);
    }
    assert_eq!(uncut.list.lock().unwrap().len(), MAX_UNCUT, "whoever makes paths makes no memory");
    assert!(holds(IpAddr::from([10, 0, 0, MAX_UNCUT as u8]), 59));
}

#[test]
fn a_full_socket_is_waited_for_only_by_who_may_wait() {
    let (a, b) = (sockets(&["127.0.0.1:0"]), sockets(&["127.0.0.1:0"]));
    let storage = vec![0; 100];
    for (full, waits) in [(Full::GiveUp, false), (Full::Wait, true)] {
        let mut runs = SendRuns::new();
        runs.push(addr(&b), None, 0, storage.len());
        let mut sent = Sent::begin(full);
        let would_block = io::Error::from(io::ErrorKind::WouldBlock);
        let done = runs.recover(0, &would_block, &storage, &a.fixed()[0], &mut sent);
        assert_eq!((done, sent.waited, sent.failed), (usize::from(!waits), waits, u64::from(!waits)));
    }
}

#[test]
fn a_full_buffer_says_so() {
    let b = sockets(&["127.0.0.1:0"]);
    let mut batch = SendBatch::new(1000);
    fill(&mut batch, addr(&b), None, &[600]);
    assert!(batch.room(401).is_none() && batch.room(400).is_some());
    let mut many = SendBatch::new(65_536);
    for len in 1..=sys::SEND_RUNS {
        fill(&mut many, addr(&b), None, &[len]);
    }
    assert!(many.room(1).is_none(), "each longer datagram begins a run");
}

fn chosen(sockets: &Sockets, dst: SocketAddr, queue: usize) -> usize {
    let Ok(Chosen::Fixed(i, _)) = sockets.choose(dst, queue) else { panic!("nothing reaches {dst}") };
    i
}

#[test]
fn the_socket_is_chosen_by_family_and_queue() {
    let both = sockets(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"]);
    let v4: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:1".parse().unwrap();
    let v6: SocketAddr = "[::1]:1".parse().unwrap();
    assert_eq!([0, 1, 2].map(|queue| chosen(&both, v4, queue)), [0, 2, 0]);
    assert_eq!([0, 1].map(|queue| chosen(&both, v6, queue)), [1, 1]);
    assert_eq!(chosen(&both, mapped, 1), 2);
    assert_eq!(both.fixed()[2].to_family(mapped), v4);
    assert!(sockets(&["127.0.0.1:0"]).choose(v6, 0).is_err());
    let dual = sockets(&["[::]:0"]);
    assert_eq!(dual.choose(v4, 0).unwrap().to_family(v4), mapped);
}

#[test]
fn a_datagram_that_came_before_the_socket_was_set_up_has_no_local_address_rather_than_a_false_one() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let early = UdpSocket::bind(bind).unwrap();
        let sender = UdpSocket::bind(bind).unwrap();
        sender.send_to(b"early", early.local_addr().unwrap()).unwrap();
        let sockets = Sockets::new(vec![early]).unwrap();
        sender.send_to(b"later", addr(&sockets)).unwrap();
        let received = receive(&sockets, 2);
        let later = received[1].2.local;
        assert_eq!(later, Some(addr(&sockets).ip()));
        let early = received[0].2.local;
        assert!(early.is_none_or(|local| Some(local) == later), "{early:?}: QUIC would pin the path to it");
    }
}

/// How many routers may still pass on the datagram that comes next, by the kernel's word.
fn hops_of(bind: &str, hops: Option<u8>) -> i32 {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
    use std::{io::IoSliceMut, os::fd::AsRawFd};

    let (a, b) = (sockets(&[bind]), UdpSocket::bind(bind).unwrap());
    setsockopt(&b, sockopt::Ipv4RecvTtl, &true).unwrap();
    a.fixed()[0].send_within(b.local_addr().unwrap(), None, b"x", hops).unwrap();
    let mut buffer = [0; 4];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(i32);
    let got = recvmsg::<SockaddrStorage>(b.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let ttl = got
        .cmsgs()
        .unwrap()
        .find_map(|message| if let ControlMessageOwned::Ipv4Ttl(ttl) = message { Some(ttl) } else { None });
    ttl.unwrap()
}

#[test]
fn a_datagram_lives_for_as_many_hops_as_asked() {
    assert_eq!(hops_of("127.0.0.1:0", Some(2)), 2);
    assert!(hops_of("127.0.0.1:0", None) >= 32, "as usual");
}
