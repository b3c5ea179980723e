// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual network of one wire: constant delay, and a rule that decides the fate of each datagram.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pqvpn_node::link::{LinkRecv, LinkSocket, LinkTransmit, Writable};
use tokio::sync::Notify;
use tokio::time::Instant;

/// One datagram as the wire saw it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// How many datagrams went this way before.
    pub(crate) index: usize,
    pub(crate) at: Instant,
    pub(crate) bytes: Vec<u8>,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    /// Arrives this much after its time.
    Late(Duration),
    /// Arrives with a forged source.
    From(SocketAddr),
}

type Rule = Box<dyn FnMut(&Sent) -> Fate + Send>;

/// The wire; clones are the same wire.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    one_way: Duration,
    /// Datagrams that a socket takes at once.
    segments: AtomicUsize,
    state: Mutex<State>,
    more: Notify,
}

struct State {
    rule: Rule,
    ports: HashMap<SocketAddr, Arc<Port>>,
    sent: Vec<Sent>,
    counts: HashMap<(SocketAddr, SocketAddr), usize>,
    /// Datagrams under way by arrival and order of sending.
    flying: BTreeMap<(Instant, usize), (SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Wire {
    /// A wire that loses nothing; call it inside a runtime.
    pub(crate) fn new(one_way: Duration) -> Self {
        let state = State {
            rule: Box::new(|_| Fate::Arrives),
            ports: HashMap::new(),
            sent: Vec::new(),
            counts: HashMap::new(),
            flying: BTreeMap::new(),
        };
        let wire = Self(Arc::new(Inner {
            one_way,
            segments: AtomicUsize::new(8),
            state: Mutex::new(state),
            more: Notify::new(),
        }));
        tokio::spawn(wire.clone().carry());
        wire
    }

    pub(crate) fn set_rule(&self, rule: impl FnMut(&Sent) -> Fate + Send + 'static) {
        self.0.state.lock().unwrap().rule = Box::new(rule);
    }

    /// From now on sockets take one datagram at a time, as where the kernel cuts none.
    pub(crate) fn take_one_at_a_time(&self) {
        self.0.segments.store(1, Ordering::Relaxed);
    }

    pub(crate) fn socket(&self, addr: &str) -> Arc<WireSocket> {
        let addr: SocketAddr = addr.parse().unwrap();
        let port = Arc::new(Port { inbox: Mutex::default(), addr: Mutex::new(addr) });
        self.0.state.lock().unwrap().ports.insert(addr, Arc::clone(&port));
        Arc::new(WireSocket { wire: self.clone(), port })
    }

    /// The socket at `old` is from now on at `new`, as after a change of network.
    pub(crate) fn move_socket(&self, old: SocketAddr, new: SocketAddr) {
        let mut state = self.0.state.lock().unwrap();
        let port = state.ports.remove(&old).unwrap();
        *port.addr.lock().unwrap() = new;
        state.ports.insert(new, port);
    }

    /// Every datagram so far, lost ones included.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.0.state.lock().unwrap().sent.clone()
    }

    pub(crate) fn sent_from(&self, from: SocketAddr) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| sent.from == from).collect()
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.0.state.lock().unwrap();
        let count = state.counts.entry((from, to)).or_default();
        let sent = Sent { from, to, index: *count, at: Instant::now(), bytes: bytes.to_vec() };
        *count += 1;
        let fate = (state.rule)(&sent);
        let (delay, from) = match fate {
            Fate::Arrives => (self.0.one_way, from),
            Fate::Late(by) => (self.0.one_way + by, from),
            Fate::From(forged) => (self.0.one_way, forged),
            Fate::Lost => {
                state.sent.push(sent);
                return;
            }
        };
        let key = (sent.at + delay, state.sent.len());
        state.sent.push(sent);
        state.flying.insert(key, (from, to, bytes.to_vec()));
        self.0.more.notify_one();
    }

    async fn carry(self) {
        loop {
            let next = self.0.state.lock().unwrap().flying.keys().next().map(|(at, _)| *at);
            match next {
                None => self.0.more.notified().await,
                Some(at) if at > Instant::now() => tokio::select! {
                    () = self.0.more.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                Some(_) => self.deliver_first(),
            }
        }
    }

    fn deliver_first(&self) {
        let mut state = self.0.state.lock().unwrap();
        let (_, (from, to, bytes)) = state.flying.pop_first().unwrap();
        if let Some(port) = state.ports.get(&to) {
            let mut inbox = port.inbox.lock().unwrap();
            inbox.datagrams.push_back((from, bytes));
            if let Some(waker) = inbox.waker.take() {
                waker.wake();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inbox {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Port {
    inbox: Mutex<Inbox>,
    addr: Mutex<SocketAddr>,
}

/// One end of the wire.
pub(crate) struct WireSocket {
    wire: Wire,
    port: Arc<Port>,
}

impl std::fmt::Debug for WireSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.port.addr.fmt(f)
    }
}

impl LinkSocket for WireSocket {
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [LinkRecv],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.port.inbox.lock().unwrap();
        let Some((from, bytes)) = inbox.datagrams.pop_front() else {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        meta[0] = LinkRecv { from, dst_ip: None, ecn: None, len: bytes.len(), stride: bytes.len() };
        Poll::Ready(Ok(1))
    }

    fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
        let from = *self.port.addr.lock().unwrap();
        assert!(transmit.segment_size.is_none() || self.max_transmit_segments() > 1, "told to take one");
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for segment in transmit.contents.chunks(size) {
            self.wire.send(from, transmit.to, segment);
        }
        Ok(())
    }

    fn writable(self: Arc<Self>) -> Writable {
        Box::pin(async { Ok(()) })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(*self.port.addr.lock().unwrap())
    }

    fn max_transmit_segments(&self) -> usize {
        self.wire.0.segments.load(Ordering::Relaxed)
    }

    // Else the QUIC stacks would probe for no larger datagrams, whatever they are told.
    fn may_fragment(&self) -> bool {
        false
    }
}
