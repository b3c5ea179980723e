// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay on the path of two daemons: sees every datagram, keeps some, and can add its own from either address.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use pqvpn_lab::netns::Namespace;

use crate::traffic::udp;

/// Datagrams kept of each direction and kind.
const KEPT: usize = 400;
/// How soon the threads see that they shall end.
const PATIENCE: Duration = Duration::from_millis(50);

/// Datagrams of one direction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Captured {
    pub(crate) tunnel: Vec<Vec<u8>>,
    pub(crate) quic: Vec<Vec<u8>>,
}

/// Forwards between `a` and `b`; to each it looks like the other.
pub(crate) struct Relay {
    /// Towards `a`: what `a` knows as `b`.
    pub(crate) face_a: UdpSocket,
    /// Towards `b`: what `b` knows as `a`.
    pub(crate) face_b: UdpSocket,
    a: SocketAddr,
    b: SocketAddr,
    from_a: Arc<Mutex<Captured>>,
    from_b: Arc<Mutex<Captured>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Starts it in `namespace`, with its two faces on the given ports.
    pub(crate) fn start(namespace: &Namespace, ip: Ipv4Addr, ports: (u16, u16), a: SocketAddr, b: SocketAddr) -> Self {
        let face_a = udp(namespace, SocketAddr::new(ip.into(), ports.0));
        let face_b = udp(namespace, SocketAddr::new(ip.into(), ports.1));
        let (from_a, from_b) = (Arc::default(), Arc::default());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![
            forward(&face_a, a, &face_b, b, Arc::clone(&from_a), Arc::clone(&stop)),
            forward(&face_b, b, &face_a, a, Arc::clone(&from_b), Arc::clone(&stop)),
        ];
        Self { face_a, face_b, a, b, from_a, from_b, stop, threads }
    }

    /// What was seen of `a` and of `b`.
    pub(crate) fn captured(&self) -> (Captured, Captured) {
        (self.from_a.lock().unwrap().clone(), self.from_b.lock().unwrap().clone())
    }

    /// Sends something to `b` as if `a` had.
    pub(crate) fn inject_to_b(&self, datagram: &[u8]) {
        self.face_b.send_to(datagram, self.b).unwrap();
    }

    /// Sends something to `a` as if `b` had.
    pub(crate) fn inject_to_a(&self, datagram: &[u8]) {
        self.face_a.send_to(datagram, self.a).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed; the tunnel through it then failed the test.
            _ = thread.join();
        }
    }
}

/// Moves datagrams of `sender` from one face to the other.
fn forward(
    from: &UdpSocket,
    sender: SocketAddr,
    to: &UdpSocket,
    target: SocketAddr,
    kept: Arc<Mutex<Captured>>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    from.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Relaxed) {
            let Ok((len, source)) = from.recv_from(&mut buffer) else { continue };
            if source != sender {
                continue;
            }
            let datagram = &buffer[..len];
            let mut kept = kept.lock().unwrap();
            let kind = if datagram[0] & 0xe0 == 0x20 { &mut kept.tunnel } else { &mut kept.quic };
            if kind.len() < KEPT {
                kind.push(datagram.to_vec());
            }
            drop(kept);
            // A full buffer here is loss on the path, which the ends survive.
            _ = to.send_to(datagram, target);
        }
    })
}
