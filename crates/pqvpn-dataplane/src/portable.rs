// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TUN device through the `tun-rs` crate, meant for systems other than Linux: plain packets, one queue, no offloads.
//!
//! So far it has been compiled and tested on Linux only, where [`KernelTun`](crate::KernelTun) is the better choice.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::tun::{Offloads, ReadBatch, TunReader, TunWriter, VNET_HDR_LEN};

/// The reading half of a `tun-rs` device.
pub struct PortableReader(Arc<SyncDevice>);

/// The writing half of a `tun-rs` device.
pub struct PortableWriter {
    device: Arc<SyncDevice>,
    /// Where the pieces of a packet are put together: not every system takes a vector.
    packet: Vec<u8>,
}

/// Makes the interface `name`, down and without addresses, and gives its two halves.
///
/// # Errors
/// Whatever the system says.
pub fn open(name: &str) -> io::Result<(PortableReader, PortableWriter)> {
    let device = DeviceBuilder::new().name(name).enable(false).build_sync()?;
    device.set_nonblocking(true)?;
    let device = Arc::new(device);
    Ok((PortableReader(Arc::clone(&device)), PortableWriter { device, packet: Vec::new() }))
}

impl TunReader for PortableReader {
    fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()> {
        while let Some(space) = batch.space() {
            let (header, packet) = space.split_at_mut(VNET_HDR_LEN);
            header.fill(0);
            match self.0.recv(packet) {
                Ok(len) => batch.commit(VNET_HDR_LEN + len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !batch.is_empty() => {
                    batch.end();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl TunWriter for PortableWriter {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.packet.clear();
        parts.iter().skip(1).for_each(|part| self.packet.extend_from_slice(part));
        self.device.send(&self.packet).map(drop)
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}
