// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls of the kernel's TUN device.
#![expect(unsafe_code, reason = "ioctl(2) has no safe wrapper in the standard library")]

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
};

use super::{Offloads, ReadBatch, TunError, TunReader, TunWriter, VNET_HDR_LEN};

const DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h, where the libc crate lacks them.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// One queue of an interface, and the name the kernel gave.
pub(super) struct Queue {
    pub(super) file: File,
    pub(super) name: String,
}

/// Opens one queue of the interface `name`, making the interface with the first.
pub(super) fn open_queue(name: &str, multi: bool) -> Result<Queue, TunError> {
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(DEVICE);
    let file = opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::Missing(source),
        Some(libc::EACCES | libc::EPERM) => TunError::NoPrivilege(source),
        _ => TunError::Os { what: "open", source },
    })?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = interface_request(name);
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's field has 16 bits, and so have these flags")]
    {
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    checked(result).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::NoPrivilege(source),
        // EINVAL: the name belongs to an interface of another kind, or of another number of queues.
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => TunError::NameBusy { name: name.to_owned(), source },
        _ => TunError::Os { what: "TUNSETIFF", source },
    })?;
    let size: libc::c_int = VNET_HDR_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which `size` is and which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) };
    checked(result).map_err(|source| TunError::Os { what: "TUNSETVNETHDRSZ", source })?;
    let name = request.ifr_name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c.cast_unsigned())).collect();
    Ok(Queue { file, name })
}

/// The index of an interface.
pub(super) fn interface_index(name: &str) -> Result<u32, TunError> {
    let mut bytes = [0u8; libc::IFNAMSIZ];
    for (slot, byte) in bytes.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *slot = byte;
    }
    // SAFETY: `bytes` ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(bytes.as_ptr().cast()) } {
        0 => Err(TunError::Os { what: "if_nametoindex", source: io::Error::last_os_error() }),
        index => Ok(index),
    }
}

/// Asks for super-packets; without UDP ones where the kernel is older than 6.2, without any where it refuses all.
pub(super) fn set_offloads(files: &[File]) -> Result<Offloads, TunError> {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let steps = [
        (tcp | TUN_F_USO4 | TUN_F_USO6, Offloads { tso: true, uso: true }),
        (tcp, Offloads { tso: true, uso: false }),
        (0, Offloads::default()),
    ];
    let mut last = None;
    for (flags, offloads) in steps {
        match files.iter().try_for_each(|file| set_offload(file, flags)) {
            Ok(()) => return Ok(offloads),
            Err(source) => last = Some(source),
        }
    }
    let source = last.unwrap_or_else(|| io::Error::from(io::ErrorKind::Unsupported));
    Err(TunError::Os { what: "TUNSETOFFLOAD", source })
}

fn set_offload(file: &File, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, flags) })
}

/// Makes the two halves of a queue.
pub(super) fn split(file: File, offloads: Offloads) -> Result<(KernelTunReader, KernelTunWriter), TunError> {
    let file = Arc::new(file);
    Ok((KernelTunReader { file: Arc::clone(&file) }, KernelTunWriter { file, offloads }))
}

/// The reading half of a queue of the kernel's TUN device.
#[derive(Debug)]
pub struct KernelTunReader {
    file: Arc<File>,
}

impl TunReader for KernelTunReader {
    fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()> {
        while let Some(space) = batch.space() {
            match (&*self.file).read(space) {
                Ok(len) => batch.commit(len),
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
        self.file.as_fd()
    }
}

/// The writing half of a queue of the kernel's TUN device.
#[derive(Debug)]
pub struct KernelTunWriter {
    file: Arc<File>,
    offloads: Offloads,
}

impl TunWriter for KernelTunWriter {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match (&*self.file).write_vectored(parts) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
