// SPDX-License-Identifier: MIT OR Apache-2.0
//! The send buffer: datagrams written once, grouped into runs of equal size, each run one message.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::{
    MAX_GSO_BYTES, MAX_GSO_SEGMENTS, Socket, Sockets, gso_refused, source_refused,
    sys::{Message, SEND_RUNS, SendScratch, send_one},
};

/// Datagrams of one destination, one size but for a shorter last one, back to back.
#[derive(Debug, Clone, Copy)]
struct Run {
    dst: SocketAddr,
    src: Option<IpAddr>,
    start: usize,
    len: usize,
    segment: usize,
    count: usize,
    /// The last datagram was shorter: nothing may follow.
    closed: bool,
}

/// What became of a flush.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Datagrams the system refused.
    pub(crate) failed: u64,
    /// Destinations for which it refused our source address.
    pub(crate) source_refused: Vec<SocketAddr>,
    /// Destinations for which a datagram was too long.
    pub(crate) too_long: Vec<SocketAddr>,
    /// A socket was full, and was waited for.
    pub(crate) waited: bool,
    /// What is left is not waited for: in vain once, or not at all.
    in_vain: bool,
}

impl Sent {
    pub(super) fn begin(full: Full) -> Self {
        Self { in_vain: full == Full::GiveUp, ..Self::default() }
    }

    /// Waits for room in a full socket, once.
    fn wait(&mut self, socket: &Socket) -> bool {
        if !self.in_vain {
            self.waited = true;
            self.in_vain = !socket.wait_writable().unwrap_or(false);
        }
        !self.in_vain
    }

    fn refuse(&mut self, run: Run, error: &io::Error, datagrams: u64) {
        self.failed += datagrams;
        if error.raw_os_error() == Some(libc::EMSGSIZE) && !self.too_long.contains(&run.dst) {
            self.too_long.push(run.dst);
        }
    }
}

/// A buffer of sealed datagrams on their way out.
pub(crate) struct SendBatch {
    storage: Box<[u8]>,
    used: usize,
    runs: SendRuns,
}

impl SendBatch {
    /// A buffer of `bytes` bytes; no more than [`MAX_GSO_BYTES`] may ever be written as one datagram.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { storage: vec![0; bytes].into(), used: 0, runs: SendRuns::new() }
    }

    /// Bytes waiting.
    pub(crate) fn pending(&self) -> usize {
        self.used
    }

    /// Room to write a datagram of `len` bytes, or `None`: flush first.
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.runs.is_full() {
            return None;
        }
        self.storage.get_mut(self.used..self.used + len)
    }

    /// What was written since the last flush, and is not on its way yet.
    pub(crate) fn waiting(&mut self) -> &mut [u8] {
        &mut self.storage[..self.used]
    }

    /// Takes the `len` bytes written to [`room`](Self::room) as a datagram.
    pub(crate) fn commit(&mut self, dst: SocketAddr, src: Option<IpAddr>, len: usize) {
        self.runs.push(dst, src, self.used, len);
        self.used += len;
    }

    /// Sends everything in order and empties the buffer. `queue` chooses among several sockets.
    pub(crate) fn flush(&mut self, sockets: &Sockets, queue: usize) -> Sent {
        self.used = 0;
        self.runs.flush(&self.storage, sockets, queue, Full::Wait)
    }
}

/// What to do with datagrams that a full socket does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Wait a while, once.
    Wait,
    /// Give them up: others wait for this thread.
    GiveUp,
}

/// Datagrams in somebody's storage, grouped into runs.
pub(crate) struct SendRuns {
    runs: Vec<Run>,
    scratch: SendScratch,
}

impl SendRuns {
    pub(crate) fn new() -> Self {
        Self { runs: Vec::with_capacity(SEND_RUNS), scratch: SendScratch::new() }
    }

    /// Whether a datagram may find no place: flush first.
    pub(crate) fn is_full(&self) -> bool {
        self.runs.len() == SEND_RUNS
    }

    /// Takes the `len` bytes at `start` of the storage as a datagram.
    pub(crate) fn push(&mut self, dst: SocketAddr, src: Option<IpAddr>, start: usize, len: usize) {
        if let Some(run) = self.runs.last_mut()
            && run.dst == dst
            && run.src == src
            && run.start + run.len == start
            && !run.closed
            && len <= run.segment
            && run.count < MAX_GSO_SEGMENTS
            && run.len + len <= MAX_GSO_BYTES
        {
            run.len += len;
            run.count += 1;
            run.closed = len < run.segment;
        } else {
            self.runs.push(Run { dst, src, start, len, segment: len, count: 1, closed: false });
        }
    }

    /// Sends everything in order. `queue` chooses among several sockets.
    pub(crate) fn flush(&mut self, storage: &[u8], sockets: &Sockets, queue: usize, full: Full) -> Sent {
        let mut sent = Sent::begin(full);
        let mut at = 0;
        while let Some(first) = self.runs.get(at) {
            let Ok(socket) = sockets.choose(first.dst, queue) else {
                sent.failed += first.count as u64;
                at += 1;
                continue;
            };
            at += self.send_from(at, storage, sockets, &socket, &mut sent);
        }
        self.runs.clear();
        sent
    }

    /// Sends the runs from `at` on that leave through `socket`; returns how many are dealt with (at least one).
    fn send_from(&mut self, at: usize, storage: &[u8], sockets: &Sockets, socket: &Socket, sent: &mut Sent) -> usize {
        let dst = self.runs[at].dst;
        let cut = |run: &Run| run.count == 1 || socket.gso(run.dst);
        if !cut(&self.runs[at]) {
            send_singly(self.runs[at], storage, socket, sent);
            return 1;
        }
        let same = self.runs[at..].iter().take_while(|run| sockets.alike(run.dst, dst) && cut(run));
        let messages = same.map(|run| message(storage, run, socket));
        match self.scratch.send(socket.fd(), messages) {
            Ok(done) => done.max(1),
            Err(error) => self.recover(at, &error, storage, socket, sent),
        }
    }

    /// Deals with the run that was refused; returns 1 when it is done with, 0 when it is to be tried again.
    pub(super) fn recover(
        &mut self,
        at: usize,
        error: &io::Error,
        storage: &[u8],
        socket: &Socket,
        sent: &mut Sent,
    ) -> usize {
        let run = self.runs[at];
        let full = error.kind() == io::ErrorKind::WouldBlock;
        if error.kind() == io::ErrorKind::Interrupted || (full && sent.wait(socket)) {
            return 0;
        }
        if run.count > 1 && gso_refused(error) {
            return self.try_singly(at, error, storage, socket, sent);
        }
        if run.src.is_some() && source_refused(error) {
            for run in self.runs.iter_mut().filter(|other| other.dst == run.dst) {
                run.src = None;
            }
            sent.source_refused.push(run.dst);
            return 0;
        }
        sent.refuse(run, error, run.count as u64);
        1
    }

    /// A run was refused with an error that comes of segmentation, of datagrams longer than the network takes, and of a source
    /// that is gone: the first datagram alone tells which. Returns what [`Self::recover`] does.
    fn try_singly(&mut self, at: usize, error: &io::Error, storage: &[u8], socket: &Socket, sent: &mut Sent) -> usize {
        let run = self.runs[at];
        let first = Run { len: run.segment, count: 1, ..run };
        let rest = Run { start: run.start + run.segment, len: run.len - run.segment, count: run.count - 1, ..run };
        let alone = send_one(socket.fd(), &message(storage, &first, socket));
        match alone {
            Ok(()) => socket.give_up_gso(run.dst, error),
            Err(error) if run.src.is_some() && source_refused(&error) => {
                self.runs[at] = first;
                let again = self.recover(at, &error, storage, socket, sent);
                self.runs[at] = Run { src: self.runs[at].src, ..run };
                return again;
            }
            Err(error) => sent.refuse(run, &error, 1),
        }
        send_singly(rest, storage, socket, sent);
        1
    }
}

/// Sends the datagrams of a run one by one; returns how many went.
fn send_singly(run: Run, storage: &[u8], socket: &Socket, sent: &mut Sent) -> usize {
    let whole = message(storage, &run, socket);
    let mut went = 0;
    for contents in whole.contents.chunks(run.segment) {
        let single = Message { contents, segment: None, ..whole };
        let mut result = send_one(socket.fd(), &single);
        if matches!(&result, Err(e) if e.kind() == io::ErrorKind::WouldBlock) && sent.wait(socket) {
            result = send_one(socket.fd(), &single);
        }
        match result {
            Ok(()) => went += 1,
            Err(error) => sent.refuse(run, &error, 1),
        }
    }
    went
}

fn message<'a>(storage: &'a [u8], run: &Run, socket: &Socket) -> Message<'a> {
    Message {
        dst: socket.to_family(run.dst),
        src: run.src,
        ecn: None,
        contents: &storage[run.start..run.start + run.len],
        segment: if run.count > 1 { u16::try_from(run.segment).ok() } else { None },
        hops: None,
    }
}
