// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls of the kernel's TUN device.
#![expect(unsafe_code, reason = "ioctl(2) has no safe wrapper in the standard library")]

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::{Offloads, ReadBatch, TunError, TunReader, TunWriter, VNET_HDR_LEN, lanes::Lanes};

const DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h, where the libc crate lacks them.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETOWNER: libc::c_ulong = 0x4004_54cc;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// One queue of an interface, and the name the kernel gave.
pub(super) struct Queue {
    pub(super) file: File,
    pub(super) name: String,
}

/// Whose queue is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Of an interface that is made with it and may have more.
    New,
    /// One more of an interface of ours.
    Ours,
    /// The only one of an interface that was there before, made for one.
    Single,
}

/// Opens one queue of the interface `name`.
pub(super) fn open_queue(name: &str, of: Of) -> Result<Queue, TunError> {
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(DEVICE);
    let file = opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::Missing(source),
        Some(libc::EACCES | libc::EPERM) => TunError::NoPrivilege(source),
        _ => TunError::Os { what: "open", source },
    })?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = match of {
        // Or two daemons of one name would each get a part of the packets.
        Of::New => flags | libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL,
        Of::Ours => flags | libc::IFF_MULTI_QUEUE,
        Of::Single => flags,
    };
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

/// Makes the two halves: one reader of all `lanes`, and a writer.
pub(super) fn halves(
    lanes: Vec<File>,
    file: File,
    offloads: Offloads,
) -> Result<(KernelTunReader, KernelTunWriter), TunError> {
    let lanes = Lanes::new(lanes).map_err(|source| TunError::Os { what: "epoll", source })?;
    Ok((KernelTunReader { lanes }, KernelTunWriter { file, offloads }))
}

/// Has the kernel let nobody else open more queues: without an owner it lets everybody who may open the device node.
pub(super) fn own(file: &File) -> Result<(), TunError> {
    // SAFETY: geteuid takes nothing and cannot fail.
    let owner = libc::c_ulong::from(unsafe { libc::geteuid() });
    // SAFETY: TUNSETOWNER takes its argument by value.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOWNER, owner) };
    checked(result).map_err(|source| TunError::Os { what: "TUNSETOWNER", source })
}

/// Takes a queue out of those that the kernel puts packets into; it can still be written to. What is written to one of those
/// moves its flow there, away from what the kernel has chosen by the flow alone.
pub(super) fn detach(file: &File) -> Result<(), TunError> {
    let mut request = interface_request("");
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's field has 16 bits, and so has this flag")]
    {
        request.ifr_ifru.ifru_flags = libc::IFF_DETACH_QUEUE as libc::c_short;
    }
    // SAFETY: TUNSETQUEUE reads one `ifreq`, which `request` is and which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETQUEUE, &raw mut request) };
    checked(result).map_err(|source| TunError::Os { what: "TUNSETQUEUE", source })
}

/// The reading half of a queue of the kernel's TUN device.
#[derive(Debug)]
pub struct KernelTunReader {
    lanes: Lanes,
}

impl TunReader for KernelTunReader {
    fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()> {
        self.lanes.read_batch(batch)
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.lanes.fd()
    }
}

/// The writing half of a queue of the kernel's TUN device.
#[derive(Debug)]
pub struct KernelTunWriter {
    file: File,
    offloads: Offloads,
}

impl TunWriter for KernelTunWriter {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match (&self.file).write_vectored(parts) {
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
