// SPDX-License-Identifier: MIT OR Apache-2.0
//! The TUN device behind a batch-shaped trait, and the Linux kernel's.
//!
//! Every packet carries a virtio network header in front, in both directions: the kernel hands over super-packets of
//! up to 64 kB of one flow and takes them back. A device without offloads uses all-zero headers.

mod lanes;
mod sys;

use std::{
    io::{self, IoSlice},
    ops::Range,
    os::fd::BorrowedFd,
};

use thiserror::Error;

pub use self::sys::{KernelTunReader, KernelTunWriter};
use self::{
    lanes::MAX_LANES,
    sys::{Of, Queue},
};

/// Bytes of the virtio network header in front of every packet.
pub const VNET_HDR_LEN: usize = pqvpn_packet::virtio::VIRTIO_NET_HDR_LEN;
/// Longest packet a device gives or takes, virtio header included.
pub const MAX_TUN_PACKET: usize = VNET_HDR_LEN + 65_535;
/// Most packets in one [`ReadBatch`].
pub const READ_BATCH: usize = 64;

/// What a device takes from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// TCP super-packets and partial checksums.
    pub tso: bool,
    /// UDP super-packets.
    pub uso: bool,
}

/// The reading half of a TUN queue.
pub trait TunReader: Send {
    /// Reads as many packets as there are and `batch` has room for, without blocking.
    ///
    /// # Errors
    /// `WouldBlock` when there was not even one; anything else ends the queue.
    fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()>;

    /// Becomes readable when [`read_batch`](Self::read_batch) would give a packet.
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// The writing half of a TUN queue.
pub trait TunWriter: Send {
    /// Writes one packet or super-packet: virtio header first, then the pieces of the packet.
    ///
    /// # Errors
    /// Whatever refused the packet; the next one may do better.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// What the device takes.
    fn offloads(&self) -> Offloads;
}

/// Packets read in one go, back to back in one buffer that stays in the cache.
#[derive(Debug)]
pub struct ReadBatch {
    storage: Box<[u8]>,
    used: usize,
    ends: [usize; READ_BATCH],
    count: usize,
    most: usize,
    is_last: bool,
}

impl ReadBatch {
    /// Room for two of the longest packets, or many short ones.
    pub fn new() -> Self {
        Self {
            storage: vec![0; 2 * MAX_TUN_PACKET].into(),
            used: 0,
            ends: [0; READ_BATCH],
            count: 0,
            most: READ_BATCH,
            is_last: false,
        }
    }

    /// Forgets the packets, and makes room for `most` others.
    pub fn restart(&mut self, most: usize) {
        (self.used, self.count, self.most, self.is_last) = (0, 0, most.min(READ_BATCH), false);
    }

    /// Forgets the packets.
    pub fn clear(&mut self) {
        self.restart(READ_BATCH);
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// The free tail, as long as one more packet of any size fits.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        let free = self.storage.get_mut(self.used..)?;
        (self.count < self.most && free.len() >= MAX_TUN_PACKET).then_some(free)
    }

    /// Takes the first `len` bytes of [`space`](Self::space) as a packet.
    pub fn commit(&mut self, len: usize) {
        if self.count < READ_BATCH && len <= self.storage.len() - self.used {
            self.used += len;
            self.ends[self.count] = self.used;
            self.count += 1;
        }
    }

    /// Notes that the device had no more packets.
    pub fn end(&mut self) {
        self.is_last = true;
    }

    /// Whether the device had no more packets.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Number of packets whose length is in `lengths`.
    pub fn count_of(&self, lengths: Range<usize>) -> usize {
        self.packets().filter(|packet| lengths.contains(&packet.len())).count()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The packets in order, each with its virtio header.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends);
        starts.zip(self.ends).take(self.count).map(|(start, end)| &self.storage[start..end])
    }
}

impl Default for ReadBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the kernel's TUN device could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunError {
    /// The kernel has no TUN support, or the container was not given the device node.
    #[error("/dev/net/tun does not exist")]
    Missing(#[source] io::Error),
    /// Neither root nor `CAP_NET_ADMIN`.
    #[error("no privilege to create a network interface")]
    NoPrivilege(#[source] io::Error),
    /// An interface of that name exists and is in use.
    #[error("interface {name} is already in use")]
    NameBusy {
        /// The name.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// Another program has opened a queue of the interface, and would get a part of the packets.
    #[error("another program has a queue of interface {name}")]
    Shared {
        /// The name.
        name: String,
    },
    /// The name is empty, longer than 15 bytes, or has a character that interface names cannot have.
    #[error("{name:?} is not an interface name")]
    BadName {
        /// The name.
        name: String,
    },
    /// No queue, or more than the kernel has.
    #[error("{queues} queues cannot be opened")]
    BadQueues {
        /// The number.
        queues: usize,
    },
    /// Anything else.
    #[error("the TUN device failed at {what}")]
    Os {
        /// The step.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Most queues of one interface (the kernel's `MAX_TAP_QUEUES`).
const MAX_QUEUES: usize = 256;
/// The kernel's queues behind one of ours. Two of many flows may share one; more would hold more, 500 packets each.
const LANES: usize = 8;
const _: () = assert!(LANES <= MAX_LANES);

/// An interface of the Linux kernel. It vanishes when the last of its queues is closed.
#[derive(Debug)]
pub struct KernelTun {
    name: String,
    index: u32,
    offloads: Offloads,
    kernel_queues: Option<(usize, usize)>,
    queues: Vec<(KernelTunReader, KernelTunWriter)>,
}

impl KernelTun {
    /// Makes the interface `name` (a `%d` in it is replaced by a number) with `queues` queues. It is down, without
    /// addresses and with the kernel's MTU: all that is for the node to set.
    ///
    /// # Errors
    /// [`TunError`], telling apart what the user can do about it.
    pub fn open(name: &str, queues: usize) -> Result<Self, TunError> {
        let bad = name.is_empty() || name.len() > 15 || name.contains(['/', '\0', ' ', ':']) || name.starts_with('.');
        if bad {
            return Err(TunError::BadName { name: name.to_owned() });
        }
        // One of each is for writing.
        let lanes = MAX_QUEUES.checked_div(queues).map_or(0, |each| LANES.min(each.saturating_sub(1)));
        if lanes == 0 {
            return Err(TunError::BadQueues { queues });
        }
        let first = match sys::open_queue(name, Of::New) {
            Err(TunError::NameBusy { .. }) if queues == 1 => return Self::of_one(sys::open_queue(name, Of::Single)?),
            opened => opened?,
        };
        sys::own(&first.file)?;
        let name = first.name;
        let index = sys::interface_index(&name)?;
        let mut writers = vec![first.file];
        for _ in 1..queues * (lanes + 1) {
            writers.push(sys::open_queue(&name, Of::Ours)?.file);
        }
        let offloads = sys::set_offloads(&writers)?;
        // The first: what they write is said to come by a queue of their number, which has to be there still.
        let mut files = writers.split_off(queues);
        let mut halves = Vec::new();
        for writer in writers {
            sys::detach(&writer)?;
            let rest = files.split_off(lanes);
            halves.push(sys::halves(std::mem::replace(&mut files, rest), writer, offloads)?);
        }
        let kernel_queues = Some((queues * lanes, queues));
        Ok(Self { name, index, offloads, kernel_queues, queues: halves })
    }

    /// An interface that somebody has made for one queue, and that nobody else uses.
    fn of_one(queue: Queue) -> Result<Self, TunError> {
        let index = sys::interface_index(&queue.name)?;
        let writer = queue.file.try_clone().map_err(|source| TunError::Os { what: "dup", source })?;
        let files = vec![queue.file];
        let offloads = sys::set_offloads(&files)?;
        let kernel_queues = None;
        Ok(Self {
            name: queue.name,
            index,
            offloads,
            kernel_queues,
            queues: vec![sys::halves(files, writer, offloads)?],
        })
    }

    /// The interface's real name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the kernel hands over uncut.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// How many queues of the kernel's are ours, and how many more that nothing is read from. Where the interface has others, somebody
    /// has opened one in the moment before that was forbidden, and may get packets. `None`: nobody can.
    pub fn kernel_queues(&self) -> Option<(usize, usize)> {
        self.kernel_queues
    }

    /// The queues, in the form [`DataPlaneConfig`](crate::DataPlaneConfig) wants.
    pub fn into_queues(self) -> Vec<(Box<dyn TunReader>, Box<dyn TunWriter>)> {
        let boxed = |(reader, writer)| (Box::new(reader) as Box<dyn TunReader>, Box::new(writer) as Box<dyn TunWriter>);
        self.queues.into_iter().map(boxed).collect()
    }
}
