// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory twin of a TUN queue: a test plays the kernel, injecting and collecting packets.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    sys::Wake,
    table::lock,
    tun::{Offloads, ReadBatch, TunReader, TunWriter},
};

/// Most packets waiting in either direction.
const CAPACITY: usize = 8192;

/// The kernel's end of a queue in memory. Packets carry their virtio header, as with the kernel.
#[derive(Debug, Clone)]
pub struct MemTun {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Readable exactly while `to_plane` has packets.
    wake: Wake,
    to_plane: Mutex<VecDeque<Vec<u8>>>,
    from_plane: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
    offloads: Offloads,
}

/// The data plane's reading half of a queue in memory.
#[derive(Debug)]
pub struct MemReader(Arc<Shared>);

/// The data plane's writing half of a queue in memory.
#[derive(Debug)]
pub struct MemWriter(Arc<Shared>);

impl MemTun {
    /// Makes a queue whose device takes `offloads`: the kernel's end and both halves for the data plane.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(offloads: Offloads) -> io::Result<(Self, MemReader, MemWriter)> {
        let shared = Arc::new(Shared {
            wake: Wake::new()?,
            to_plane: Mutex::default(),
            from_plane: Mutex::default(),
            arrived: Condvar::new(),
            offloads,
        });
        Ok((Self { shared: Arc::clone(&shared) }, MemReader(Arc::clone(&shared)), MemWriter(shared)))
    }

    /// Hands a packet (virtio header included) to the data plane; `false` when the queue is full.
    pub fn inject(&self, packet: &[u8]) -> bool {
        self.inject_all(std::iter::once(packet.to_vec()))
    }

    /// Hands several packets to the data plane at once; `false` when one did not fit.
    pub fn inject_all(&self, packets: impl IntoIterator<Item = Vec<u8>>) -> bool {
        let mut queue = lock(&self.shared.to_plane);
        for packet in packets {
            if queue.len() >= CAPACITY {
                return false;
            }
            queue.push_back(packet);
        }
        self.shared.wake.wake();
        true
    }

    /// The next packet the data plane wrote (virtio header included), waiting up to `timeout` for it.
    pub fn collect(&self, timeout: Duration) -> Option<Vec<u8>> {
        let queue = lock(&self.shared.from_plane);
        let waited = self.shared.arrived.wait_timeout_while(queue, timeout, |queue| queue.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

impl TunReader for MemReader {
    fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()> {
        let mut queue = lock(&self.0.to_plane);
        while let Some(space) = batch.space() {
            let Some(packet) = queue.pop_front() else { break };
            let len = packet.len().min(space.len());
            space[..len].copy_from_slice(&packet[..len]);
            batch.commit(len);
        }
        if queue.is_empty() {
            self.0.wake.clear();
            batch.end();
        }
        if batch.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.fd()
    }
}

impl TunWriter for MemWriter {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut queue = lock(&self.0.from_plane);
        if queue.len() >= CAPACITY {
            return Err(io::ErrorKind::StorageFull.into());
        }
        queue.push_back(parts.iter().flat_map(|part| part.iter().copied()).collect());
        self.0.arrived.notify_one();
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.0.offloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_each_way() {
        let (kernel, mut reader, mut writer) = MemTun::new(Offloads::default()).unwrap();
        let mut batch = ReadBatch::new();
        assert_eq!(reader.read_batch(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(kernel.inject(b"down"));
        reader.read_batch(&mut batch).unwrap();
        assert_eq!(batch.packets().collect::<Vec<_>>(), [b"down"]);
        writer.write(&[IoSlice::new(b"u"), IoSlice::new(b"p")]).unwrap();
        assert_eq!(kernel.collect(Duration::ZERO).as_deref(), Some(&b"up"[..]));
        assert_eq!(kernel.collect(Duration::ZERO), None);
    }

    #[test]
    fn the_queues_are_bounded() {
        let (kernel, _reader, mut writer) = MemTun::new(Offloads::default()).unwrap();
        assert!((0..CAPACITY).all(|_| kernel.inject(b"x")));
        assert!(!kernel.inject(b"x"));
        assert!((0..CAPACITY).all(|_| writer.write(&[IoSlice::new(b"x")]).is_ok()));
        assert!(writer.write(&[IoSlice::new(b"x")]).is_err());
    }
}
