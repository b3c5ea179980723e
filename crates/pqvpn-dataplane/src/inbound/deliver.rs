// SPDX-License-Identifier: MIT OR Apache-2.0
//! From opened packets to the TUN: merged across the batch, or checksummed one by one for a device without offloads.

use std::{io::IoSlice, sync::Arc};

use pqvpn_packet::{
    checksum,
    coalesce::{CoalesceError, Coalescer, MAX_SEGMENTS, Merged},
    header::PacketKind,
    ip::{IpView, UDP},
    segment::partial_offset,
    virtio::{VIRTIO_NET_HDR_LEN, VirtioNetHdr},
};

use crate::{
    stats::{DropCounters, DropReason},
    tun::{Offloads, TunWriter},
};

/// Packets that may wait for merging.
const WAITING: usize = 4096;
/// Bytes after which the first super-packets leave although the batch goes on.
const EARLY: usize = 512 * 1024;
/// What is not given up to tell senders that they are too fast: acknowledgements, handshakes, names, echoes.
const SHORT: usize = 256;
/// UDP datagrams that are delivered before others follow: nothing but the reader's buffer, of some 90 by default, makes
/// their sender wait.
const CROWD: usize = 32;
/// Pieces of a super-packet for which the short list suffices.
const FEW: usize = 8;

/// The way to the TUN.
pub(super) struct Deliver {
    writer: Box<dyn TunWriter>,
    offloads: Offloads,
    coalescer: Coalescer,
    /// Packets put together from pieces that wait: the coalescer's buffers after the storage.
    wholes: Vec<Vec<u8>>,
    waiting: usize,
    /// UDP datagrams among it.
    datagrams: usize,
    /// The next long packet is given up.
    shed: bool,
    pub(super) drops: Arc<DropCounters>,
}

impl Deliver {
    pub(super) fn new(writer: Box<dyn TunWriter>, drops: Arc<DropCounters>) -> Self {
        let offloads = writer.offloads();
        let coalescer = Coalescer::new(WAITING).merge_udp(offloads.uso);
        Self { writer, offloads, coalescer, wholes: Vec::new(), waiting: 0, datagrams: 0, shed: false, drops }
    }

    /// Takes the inner packet at `offset` of `storage`, `len` bytes with padding.
    pub(super) fn push(&mut self, kind: PacketKind, storage: &mut [u8], offset: usize, len: usize) {
        if self.is_shed(len) {
            return;
        }
        if !self.offloads.tso {
            return self.write_plain(kind, &mut storage[offset..offset + len]);
        }
        let Ok(place) = u32::try_from(offset) else { return };
        if self.coalescer.is_full() {
            self.flush(storage);
        }
        let packet = &storage[offset..offset + len];
        let pushed = self.coalescer.push(kind, packet, 0, place);
        self.pushed(pushed, packet);
    }

    /// Takes a packet that was put together from pieces.
    pub(super) fn push_whole(&mut self, kind: PacketKind, storage: &mut [u8], mut packet: Vec<u8>) {
        if self.is_shed(packet.len()) {
            return;
        }
        if !self.offloads.tso {
            return self.write_plain(kind, &mut packet);
        }
        if self.coalescer.is_full() {
            self.flush(storage);
        }
        let buffer = self.wholes.len() as u32 + 1;
        let pushed = self.coalescer.push(kind, &packet, buffer, 0);
        self.pushed(pushed, &packet);
        self.wholes.push(packet);
    }

    fn pushed(&mut self, pushed: Result<(), CoalesceError>, packet: &[u8]) {
        match pushed {
            Ok(()) => {
                self.waiting += packet.len();
                self.datagrams += usize::from(is_udp(packet));
            }
            Err(_) => self.drops.count(DropReason::MalformedInner),
        }
    }

    /// Whether a packet of this length is the one to give up, which is then done.
    fn is_shed(&mut self, len: usize) -> bool {
        let is_shed = self.shed && len > SHORT;
        if is_shed {
            self.shed = false;
            self.drops.count(DropReason::QueueDelay);
        }
        is_shed
    }

    /// Has the next long packet given up, or not; gives whether one was still to be.
    pub(super) const fn shed(&mut self, shed: bool) -> bool {
        std::mem::replace(&mut self.shed, shed)
    }

    /// Writes what waits if that is much; `true` if it was a crowd of datagrams.
    pub(super) fn flush_early(&mut self, storage: &mut [u8]) -> bool {
        let crowded = self.datagrams >= CROWD;
        if crowded || self.waiting >= EARLY {
            self.flush(storage);
        }
        crowded
    }

    /// Writes everything that waits.
    pub(super) fn flush(&mut self, storage: &mut [u8]) {
        (self.waiting, self.datagrams) = (0, 0);
        if self.wholes.is_empty() {
            return self.write_all(&mut [storage]);
        }
        let mut wholes = std::mem::take(&mut self.wholes);
        let mut buffers: Vec<&mut [u8]> =
            std::iter::once(storage).chain(wholes.iter_mut().map(Vec::as_mut_slice)).collect();
        self.write_all(&mut buffers);
    }

    fn write_all(&mut self, buffers: &mut [&mut [u8]]) {
        while let Some(merged) = self.coalescer.pop(buffers) {
            let written = if merged.pieces.len() <= FEW {
                write::<{ FEW + 1 }>(self.writer.as_mut(), &merged, buffers)
            } else {
                write::<{ MAX_SEGMENTS + 1 }>(self.writer.as_mut(), &merged, buffers)
            };
            if written.is_err() {
                self.drops.count_many(DropReason::TunError, merged.pieces.len() as u64);
            }
        }
    }

    /// Writes a packet of our own making.
    pub(super) fn write_local(&mut self, packet: &[u8]) {
        let header = VirtioNetHdr::default().encode();
        if self.writer.write(&[IoSlice::new(&header), IoSlice::new(packet)]).is_err() {
            self.drops.count(DropReason::TunError);
        }
    }

    /// Finishes the checksum and writes the packet alone.
    fn write_plain(&mut self, kind: PacketKind, packet: &mut [u8]) {
        let Some(len) = finish(kind, packet) else {
            return self.drops.count(DropReason::MalformedInner);
        };
        let header = VirtioNetHdr::default().encode();
        let parts = [IoSlice::new(&header), IoSlice::new(&packet[..len])];
        if self.writer.write(&parts).is_err() {
            self.drops.count(DropReason::TunError);
        }
    }
}

/// Whether a packet is UDP; one with extension headers or fragments is not looked into.
fn is_udp(packet: &[u8]) -> bool {
    let (Some(first), Some(v4), Some(v6)) = (packet.first(), packet.get(9), packet.get(6)) else { return false };
    *(if first >> 4 == 4 { v4 } else { v6 }) == UDP
}

fn write<const N: usize>(
    writer: &mut dyn TunWriter,
    merged: &Merged<'_>,
    buffers: &[&mut [u8]],
) -> std::io::Result<()> {
    let header: [u8; VIRTIO_NET_HDR_LEN] = merged.virtio.encode();
    let mut parts = [IoSlice::new(&[]); N];
    parts[0] = IoSlice::new(&header);
    for (part, piece) in parts[1..].iter_mut().zip(merged.pieces) {
        *part = IoSlice::new(piece.of(buffers));
    }
    writer.write(&parts[..=merged.pieces.len().min(N - 1)])
}

/// Completes a partial checksum; gives the length without padding, or `None` for a malformed packet.
fn finish(kind: PacketKind, packet: &mut [u8]) -> Option<usize> {
    let view = IpView::parse(packet).ok()?;
    let len = view.total_len();
    if kind == PacketKind::Data {
        return Some(len);
    }
    let offset = partial_offset(&view)?;
    let start = view.l4_offset();
    checksum::complete(&mut packet[..len], start, offset).then_some(len)
}
