// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's TUN device: in network namespaces of their own, when this machine lets us; else a loud skip.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failing step must fail the test; skips must be seen")]

use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Role, SessionSecrets, Transcript},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, DropReason, GuestMeta, KernelTun, Offloads, ProbeKind, ReadBatch, SendError, SessionId,
    SessionInstall, TunError, TunReader, TunWriter, mem, portable,
    session::{RxSession, TxSession},
    way::WayId,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a namespace with a TUN can be made; says why not.
fn usable() -> bool {
    let tried = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        KernelTun::open("probe%d", 1).map_err(|error| format!("no TUN device: {error}"))?;
        ip("link set lo up").map_err(|error| format!("no ip program: {error}"))
    });
    match tried.join().unwrap() {
        Ok(()) => true,
        Err(why) => {
            eprintln!("SKIP: kernel TUN test not run: {why}");
            false
        }
    }
}

/// Runs `ip` in the namespace of this thread.
fn ip(arguments: &str) -> Result<(), String> {
    let status = Command::new("ip").args(arguments.split(' ')).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {status}")) }
}

/// Runs `body` in a network namespace of its own.
fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up").unwrap();
        body()
    })
}

/// The first packet that satisfies `wanted`, without its virtio header.
fn read_packet(reader: &mut dyn TunReader, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    let mut batch = ReadBatch::new();
    loop {
        batch.restart(1);
        match reader.read_batch(&mut batch) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        if let Some(packet) = batch.packets().map(|packet| &packet[10..]).find(|packet| wanted(packet)) {
            return packet.to_vec();
        }
        assert!(Instant::now() < deadline, "the packet did not come");
    }
}

/// Sends a datagram into the interface, and writes it back with source and destination exchanged.
fn echo(mut reader: Box<dyn TunReader>, mut writer: Box<dyn TunWriter>) {
    let socket = UdpSocket::bind("10.77.0.1:7000").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"through the device", "10.77.0.2:7001").unwrap();
    let mut packet = read_packet(reader.as_mut(), |packet| packet[0] >> 4 == 4 && packet[9] == 17);
    let (src, dst): ([u8; 4], [u8; 4]) = (packet[12..16].try_into().unwrap(), packet[16..20].try_into().unwrap());
    assert_eq!((Ipv4Addr::from(src), Ipv4Addr::from(dst)), ([10, 77, 0, 1].into(), [10, 77, 0, 2].into()));
    packet[12..16].copy_from_slice(&dst);
    packet[16..20].copy_from_slice(&src);
    packet[20..24].rotate_left(2);
    // Sums do not change when their parts change places; zero means no UDP checksum.
    packet[26..28].fill(0);
    writer.write(&[IoSlice::new(&[0; 10]), IoSlice::new(&packet)]).unwrap();
    let mut buf = [0; 64];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..len], from), (&b"through the device"[..], "10.77.0.2:7001".parse().unwrap()));
}

#[test]
fn packets_go_through_the_kernels_device_and_the_portable_one() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        let device = KernelTun::open("pqk%d", 1).unwrap();
        assert_eq!((device.name(), device.index() > 0), ("pqk0", true));
        assert!(device.offloads().tso);
        ip("addr add 10.77.0.1/24 dev pqk0").unwrap();
        ip("link set pqk0 up").unwrap();
        let (reader, writer) = device.into_queues().remove(0);
        echo(reader, writer);
        let (reader, writer) = portable::open("pqp0").unwrap();
        ip("addr add 10.77.0.1/24 dev pqp0").unwrap();
        ip("link set pqp0 up").unwrap();
        echo(Box::new(reader), Box::new(writer));
    })
    .join()
    .unwrap();
}

/// The MTU that the kernel knows of the road to an address.
fn mtu_towards(address: &str) -> String {
    let output = Command::new("ip").args(["route", "get", address]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next().unwrap_or_default().to_owned()
}

#[test]
fn the_kernel_believes_what_it_is_told_of_long_packets() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        let device = KernelTun::open("pqt0", 1).unwrap();
        ip("addr add 10.77.0.1/24 dev pqt0").unwrap();
        ip("addr add fd77::1/64 dev pqt0 nodad").unwrap();
        ip("link set pqt0 mtu 1420 up").unwrap();
        let (mut reader, mut writer) = device.into_queues().remove(0);
        for (from, to) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
            let from: std::net::IpAddr = from.parse().unwrap();
            let socket = UdpSocket::bind((from, 0)).unwrap();
            let deadline = Instant::now() + PATIENCE;
            // Each long packet is answered, as the data plane does, until the sender knows.
            while mtu_towards(to) != "1290" {
                assert!(Instant::now() < deadline, "{to}: {:?}", mtu_towards(to));
                if socket.send_to(&[7; 1300], (to, 7001)).is_ok() {
                    // It may have learnt so between the look and the sending, and then sends fragments.
                    let packet = read_packet(reader.as_mut(), |packet| packet.len() > 1000);
                    if let Some(told) = pqvpn_packet::too_big::too_big(&packet, packet.len(), 1290) {
                        writer.write(&[IoSlice::new(&[0; 10]), IoSlice::new(&told)]).unwrap();
                    }
                }
            }
        }
    })
    .join()
    .unwrap();
}

#[test]
fn a_flow_waits_for_no_other_and_keeps_its_order() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        let device = KernelTun::open("pql0", 1).unwrap();
        ip("addr add 10.77.0.1/24 dev pql0").unwrap();
        ip("link set pql0 up").unwrap();
        let (mut reader, mut writer) = device.into_queues().remove(0);
        let socket = || UdpSocket::bind("10.77.0.1:0").unwrap();
        let (bulk, others) = (socket(), [(); 5].map(|()| socket()));
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let send = |socket: &UdpSocket, number: u32, len: usize| {
            let mut datagram = vec![0; len];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            socket.send_to(&datagram, "10.77.0.2:7001").unwrap();
        };
        for number in 0..110 {
            send(&bulk, number, 1200);
        }
        // Something comes back meanwhile: the flow stays where it is.
        let (from, to) = ([10, 77, 0, 2], [10, 77, 0, 1]);
        let mut back = [&[0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0][..], &from, &to, &7001_u16.to_be_bytes()].concat();
        back.extend([&port(&bulk).to_be_bytes()[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat());
        let sum = back[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        back[10..12].copy_from_slice(&sum.to_be_bytes());
        writer.write(&[IoSlice::new(&[0; 10]), IoSlice::new(&back)]).unwrap();
        bulk.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(bulk.recv_from(&mut [0; 64]).unwrap().0, 4);
        others.iter().for_each(|socket| send(socket, 0, 64));
        for number in 110..120 {
            send(&bulk, number, 1200);
        }
        let mut early = 0;
        let mut order = Vec::new();
        for place in 0..125 {
            let packet = read_packet(reader.as_mut(), |packet| packet[0] >> 4 == 4 && packet[9] == 17);
            if packet[20..22] == port(&bulk).to_be_bytes() {
                order.push(u32::from_be_bytes(packet[28..32].try_into().unwrap()));
            } else if place < 80 {
                early += 1;
            }
        }
        assert_eq!(order, (0..120).collect::<Vec<_>>());
        // One in eight shares a queue with the transfer.
        assert!(early >= 1, "{early} of 5");
    })
    .join()
    .unwrap();
}

#[test]
fn nobody_else_gets_a_queue_of_the_interface() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        for queues in [1, 3] {
            let device = KernelTun::open("pqo%d", queues).unwrap();
            let shown = Command::new("ip").args(["-d", "link", "show", device.name()]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            let (ours, apart) = device.kernel_queues().unwrap();
            assert!(shown.contains(" user "), "without an owner everybody may: {shown}");
            assert!(shown.contains(&format!("numqueues {ours} numdisabled {apart} ")), "{shown}");
        }
    })
    .join()
    .unwrap();
}

#[test]
fn an_interface_that_was_made_for_one_queue_is_used_by_one() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        ip("tuntap add dev pqs0 mode tun").unwrap();
        let device = KernelTun::open("pqs0", 1).unwrap();
        assert!(matches!(KernelTun::open("pqs0", 1), Err(TunError::NameBusy { .. })));
        ip("addr add 10.77.0.1/24 dev pqs0").unwrap();
        ip("link set pqs0 up").unwrap();
        let (reader, writer) = device.into_queues().remove(0);
        echo(reader, writer);
    })
    .join()
    .unwrap();
}

#[test]
fn the_device_tells_its_errors_apart() {
    for bad in ["", "a-name-too-long-for-it", "a/b", "a b", ".."] {
        assert!(matches!(KernelTun::open(bad, 1), Err(TunError::BadName { .. })), "{bad:?}");
    }
    assert!(matches!(KernelTun::open("pq0", 0), Err(TunError::BadQueues { queues: 0 })));
    assert!(matches!(KernelTun::open("pq0", 300), Err(TunError::BadQueues { queues: 300 })));
    if !usable() {
        return;
    }
    in_namespace(|| {
        let first = KernelTun::open("pqb0", 2).unwrap();
        for queues in [1, 2] {
            assert!(matches!(KernelTun::open("pqb0", queues), Err(TunError::NameBusy { .. })), "{queues}");
        }
        assert!(matches!(KernelTun::open("lo", 1), Err(TunError::NameBusy { .. })));
        assert_eq!(first.into_queues().len(), 2);
        // A program that another test is about to start may have the queues for a moment.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = KernelTun::open("pqb0", 1) {
            assert!(Instant::now() < deadline, "{error}");
            thread::yield_now();
        }
    })
    .join()
    .unwrap();
}

/// A data plane whose device is in a new namespace, while its socket is on this one's loopback interface.
fn plane(side: u8, queues: usize) -> (DataPlane, UdpSocket, Handle) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = socket.try_clone().unwrap();
    let (jobs, todo) = mpsc::channel::<Job>();
    let (send, receive) = mpsc::channel();
    let thread = in_namespace(move || {
        let device = KernelTun::open("pq0", queues).unwrap();
        ip(&format!("addr add 10.78.0.{side}/24 dev pq0")).unwrap();
        ip("link set pq0 mtu 1420 up").unwrap();
        send.send(device.into_queues()).unwrap();
        todo.into_iter().for_each(|job| job());
    });
    let config = DataPlaneConfig { tun: receive.recv().unwrap(), sockets: vec![socket], inner_mtu: 1420 };
    let plane = DataPlane::start(config, Arc::new(|_| ())).unwrap();
    (plane, ours, Handle { jobs: Some(jobs), thread: Some(thread) })
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in a namespace and does what it is given.
struct Handle {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.jobs = None;
        let joined = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || joined.is_some_and(|joined| joined.is_ok()));
    }
}

fn install(plane: &DataPlane, role: Role, aead: AeadId, peer: &UdpSocket) {
    let parts = SessionSecrets::derive(Exporter::from_bytes([7; 64]), Transcript::from_bytes([8; 64]), None);
    let parts = parts.into_parts(role);
    let now = Instant::now();
    let control = plane.control();
    let other = if role == Role::Initiator { "10.78.0.2/32" } else { "10.78.0.1/32" };
    control.set_routes(vec![(other.parse().unwrap(), 0)]);
    let install = SessionInstall {
        id: SessionId(1),
        peer: 0,
        tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
        rx: RxSession::new(aead, parts.rx_header, parts.rx, 8192, now),
        local_indices: vec![1],
        remote_indices: vec![1],
        path: peer.local_addr().unwrap(),
        tx_active: true,
    };
    control.install_session(install).unwrap();
}

/// Length of the pattern; prime, so that no packet size divides it.
const PRIME: usize = 251;

/// The first `len` bytes of a pattern that repeats after [`PRIME`] bytes.
fn pattern(len: usize) -> Vec<u8> {
    let once: Vec<u8> = (0..=250).collect();
    once.iter().copied().cycle().take(len).collect()
}

/// Moves `megabytes` by TCP through two kernel devices; gives the rate in Gbit/s.
fn tcp_through(aead: AeadId, queues: usize, megabytes: usize) -> f64 {
    let (a, socket_a, namespace_a) = plane(1, queues);
    let (b, socket_b, namespace_b) = plane(2, queues);
    install(&a, Role::Initiator, aead, &socket_b);
    install(&b, Role::Responder, aead, &socket_a);
    let listener = namespace_b.run(|| TcpListener::bind("10.78.0.2:5001").unwrap()).recv().unwrap();
    let received = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut total, mut buf, expected) = (0, vec![0; 1 << 18], pattern(PRIME + (1 << 18)));
        loop {
            let len = stream.read(&mut buf).unwrap();
            if len == 0 {
                return total;
            }
            let place = total % PRIME;
            assert!(buf[..len] == expected[place..place + len], "bytes {total}.. differ");
            total += len;
        }
    });
    let started = Instant::now();
    let sent = namespace_a.run(move || {
        let mut stream = TcpStream::connect("10.78.0.2:5001").unwrap();
        let block = pattern(PRIME + (1 << 20));
        for i in 0..megabytes {
            let place = (i << 20) % PRIME;
            stream.write_all(&block[place..place + (1 << 20)]).unwrap();
        }
    });
    sent.recv().unwrap();
    assert_eq!(received.join().unwrap(), megabytes << 20);
    let rate = (megabytes << 23) as f64 / started.elapsed().as_secs_f64() / 1e9;
    let drops = (a.control().drops(), b.control().drops());
    eprintln!("{} {queues} queue(s): {rate:.2} Gbit/s", aead.name());
    let unexpected = |drops: pqvpn_dataplane::Drops| {
        // A sender that is too fast is told so by a few packets.
        let of_order = |reason: DropReason, n| match reason.name() {
            "no_route" => true,
            "queue_delay" => n < 10 * (megabytes as u64),
            _ => n == 0,
        };
        drops.iter().filter(|(reason, n)| !of_order(*reason, *n)).collect::<Vec<_>>()
    };
    assert_eq!((unexpected(drops.0), unexpected(drops.1)), (vec![], vec![]));
    rate
}

#[test]
fn tcp_crosses_two_kernel_devices_on_one_and_on_two_queues() {
    if !usable() {
        return;
    }
    tcp_through(AeadId::ChaCha20Poly1305, 1, 64);
    tcp_through(AeadId::Aes256Gcm, 1, 64);
    tcp_through(AeadId::ChaCha20Poly1305, 2, 64);
}

/// A data plane without a device on the loopback interface of this thread's namespace.
fn loopback_plane() -> (DataPlane, mem::MemTun, std::net::SocketAddr) {
    let (tun, reader, writer) = mem::MemTun::new(Offloads::default()).unwrap();
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let config =
        DataPlaneConfig { tun: vec![(Box::new(reader), Box::new(writer))], sockets: vec![socket], inner_mtu: 1420 };
    (DataPlane::start(config, Arc::new(|_| ())).unwrap(), tun, addr)
}

#[test]
fn nobody_who_takes_the_address_of_a_way_is_taken_for_it() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        let way = WayId(7);
        ip("addr add 100::7/128 dev lo nodad").unwrap();
        let (plane, _tun, addr) = loopback_plane();
        let forger = UdpSocket::bind(way.address()).unwrap();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        forger.send_to(&[0x41; 100], addr).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while plane.control().drops().get(DropReason::RelaySource) == 0 {
            assert!(Instant::now() < deadline, "{:?}", plane.control().drops());
            thread::yield_now();
        }
        let nothing = GuestMeta { addr, len: 0, stride: 0, ecn: None, dst_ip: None };
        let mut buf = [0; 200];
        let polled = plane.guest().poll_recv(&mut cx, &mut [std::io::IoSliceMut::new(&mut buf)], &mut [nothing]);
        assert!(polled.is_pending());
    })
    .join()
    .unwrap();
}

#[test]
fn a_probe_longer_than_the_network_takes_is_an_error_of_its_own() {
    if !usable() {
        return;
    }
    in_namespace(|| {
        ip("link set lo mtu 1400").unwrap();
        let (plane, _tun, addr) = loopback_plane();
        let receiver = UdpSocket::bind("[::1]:0").unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        install(&plane, Role::Initiator, AeadId::ChaCha20Poly1305, &receiver);
        let to = receiver.local_addr().unwrap();
        let probe = |len| plane.control().send_probe_to(0, 1, to, ProbeKind::Check, len);
        // 1400 less the IPv6 and UDP headers.
        probe(1352).unwrap();
        assert_eq!(receiver.recv(&mut [0; 2000]).unwrap(), 1352);
        assert!(matches!(probe(1353), Err(SendError::TooLong)));
        assert_ne!(addr, to);
    })
    .join()
    .unwrap();
}
