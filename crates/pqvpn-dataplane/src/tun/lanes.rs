// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several queues of the kernel's TUN device behind one reader. The kernel puts each flow into one of them, and they are read
//! by turns: an echo waits for a turn of the others and not for all that a transfer has in the device.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
};

use super::{MAX_TUN_PACKET, ReadBatch};
use crate::sys::Epoll;

/// Most queues of one reader.
pub(super) const MAX_LANES: usize = crate::sys::MOST_READY;

/// The queues.
#[derive(Debug)]
pub(super) struct Lanes {
    files: Vec<File>,
    epoll: Epoll,
    /// Those that had packets when it was asked last, and had no turn since; the last is the next.
    ready: Vec<usize>,
}

impl Lanes {
    pub(super) fn new(files: Vec<File>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (lane, file) in (0..).zip(&files) {
            epoll.add(file.as_fd(), lane)?;
        }
        let ready = Vec::with_capacity(files.len().min(MAX_LANES));
        Ok(Self { files, epoll, ready })
    }

    /// Becomes readable with any of them.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.fd()
    }

    /// Gives a turn to each that has packets, as far as `batch` has room; the others are the first of the next batch.
    pub(super) fn read_batch(&mut self, batch: &mut ReadBatch) -> io::Result<()> {
        // Of a lane that is not among those left over from last time nothing is known.
        let mut is_dry = self.ready.is_empty();
        if is_dry {
            self.epoll.ready(&mut self.ready)?;
            // The kernel names those first that were named longest ago.
            self.ready.reverse();
        }
        while batch.space().is_some() {
            let Some(lane) = self.ready.pop() else { break };
            if let Some(file) = self.files.get(lane) {
                is_dry &= read_turn(file, batch)?;
            }
        }
        if batch.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if is_dry && self.ready.is_empty() {
            batch.end();
        }
        Ok(())
    }
}

/// Reads packets until they have the length of the longest; says whether there are no more.
fn read_turn(mut file: &File, batch: &mut ReadBatch) -> io::Result<bool> {
    let end = batch.bytes() + MAX_TUN_PACKET;
    while batch.bytes() < end {
        let Some(space) = batch.space() else { return Ok(false) };
        match file.read(space) {
            Ok(len) => batch.commit(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixDatagram};

    use super::*;

    /// Lanes whose packets come from sockets.
    fn lanes(count: usize) -> (Vec<UnixDatagram>, Lanes) {
        let pairs = (0..count).map(|_| UnixDatagram::pair().unwrap());
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.unzip();
        let file = |socket: UnixDatagram| {
            socket.set_nonblocking(true).unwrap();
            File::from(OwnedFd::from(socket))
        };
        (ours, Lanes::new(theirs.into_iter().map(file).collect()).unwrap())
    }

    /// The lengths of the packets of the next batch, of `most` at most.
    fn next(lanes: &mut Lanes, most: usize) -> Option<(Vec<usize>, bool)> {
        let mut batch = ReadBatch::new();
        batch.restart(most);
        match lanes.read_batch(&mut batch) {
            Ok(()) => Some((batch.packets().map(<[u8]>::len).collect(), batch.is_last())),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                None
            }
        }
    }

    #[test]
    fn an_echo_waits_for_one_turn_of_a_transfer() {
        let (senders, mut lanes) = lanes(3);
        for _ in 0..3 {
            senders[0].send(&[0; 60_000]).unwrap();
        }
        senders[2].send(&[0; 84]).unwrap();
        let (first, is_last) = next(&mut lanes, 64).unwrap();
        let (second, _) = next(&mut lanes, 64).unwrap();
        assert!(!is_last);
        let before = first.iter().chain(&second).position(|&len| len == 84).unwrap();
        assert!(before <= 2, "{first:?}, {second:?}");
        let rest: Vec<_> = std::iter::from_fn(|| next(&mut lanes, 64)).flat_map(|(packets, _)| packets).collect();
        assert_eq!(first.len() + second.len() + rest.len(), 4);
    }

    #[test]
    fn two_transfers_get_as_much_whatever_the_length_of_their_packets() {
        let (senders, mut lanes) = lanes(2);
        let (mut long, mut short) = (0, 0);
        for _ in 0..12 {
            while senders[0].set_nonblocking(true).and_then(|()| senders[0].send(&[0; 60_000])).is_ok() {}
            while senders[1].set_nonblocking(true).and_then(|()| senders[1].send(&[0; 7_000])).is_ok() {}
            let (packets, _) = next(&mut lanes, 64).unwrap();
            long += packets.iter().filter(|&&len| len == 60_000).sum::<usize>();
            short += packets.iter().filter(|&&len| len == 7_000).sum::<usize>();
        }
        assert!(long < 3 * short && short < 3 * long, "{long} to {short}");
    }

    #[test]
    fn a_batch_is_the_last_when_nothing_is_left_and_one_packet_is_one() {
        let (senders, mut lanes) = lanes(2);
        assert_eq!(next(&mut lanes, 64), None);
        for _ in 0..2 {
            senders[0].send(&[0; 100]).unwrap();
        }
        senders[1].send(&[0; 200]).unwrap();
        let (first, is_last) = next(&mut lanes, 1).unwrap();
        assert_eq!((first.len(), is_last), (1, false));
        let mut all = first;
        let mut last = false;
        while let Some((packets, is_last)) = next(&mut lanes, 64) {
            assert!(!last, "nothing comes after the last");
            all.extend(packets);
            last = is_last;
        }
        all.sort_unstable();
        assert_eq!((all, last), (vec![100, 100, 200], true));
    }
}
