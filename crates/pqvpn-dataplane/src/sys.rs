// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for descriptors, the event descriptor that wakes a waiting thread, and what the allocator is told.
#![expect(
    unsafe_code,
    reason = "poll(2), epoll(7), eventfd(2), setpriority(2), mlockall(2), mallopt(3), mallinfo2(3) and malloc_trim(3) have no safe wrapper in the standard library"
)]

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// A descriptor to wait for, and whether it became ready.
pub(crate) struct Waited<'fd> {
    fd: BorrowedFd<'fd>,
    events: libc::c_short,
    /// Whether the last wait found it ready (or in error, which the next call on it tells).
    pub(crate) ready: bool,
}

impl<'fd> Waited<'fd> {
    /// Waits until reading does not block.
    pub(crate) fn readable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, events: libc::POLLIN, ready: false }
    }

    /// Waits until writing does not block.
    pub(crate) fn writable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, events: libc::POLLOUT, ready: false }
    }
}

/// Descriptors that are waited for without an allocation.
const FEW: usize = 32;

/// Blocks from this size on go back to the system when they are freed, in bytes: proofs of work take 8 MiB now and then.
const LARGE_BLOCK: libc::c_int = 512 * 1024;

/// What packet threads are worth among others: nine times as much. What the kernel does with packets itself comes before all programs.
const NICE: libc::c_int = -10;

/// Has the calling thread run before others that want its processor, where that is allowed (`RLIMIT_NICE`).
pub(crate) fn run_before_others() {
    // SAFETY: setpriority takes numbers, of which 0 is the calling thread.
    let _where_allowed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Whether memory is kept out of swap.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Keeps the memory of the process out of swap, and what it gets later as soon as it is touched; whether that is allowed.
pub fn keep_out_of_swap() -> bool {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: mlockall takes flags, and changes what the kernel does with pages, not what is in them.
        let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } == 0;
        KEPT.store(locked, Ordering::Relaxed);
        locked
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Has the allocator give back the pages that nothing is left in. By itself glibc gives back what is free at the end of its
/// heap, where the last of many that end together seldom was.
///
/// The kernel takes no locked page back (madvise(2), `MADV_DONTNEED`): where memory is kept out of swap it is not, for as long
/// as this takes, if it is sure to be again afterwards.
pub fn give_back_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let kept = KEPT.load(Ordering::Relaxed);
        if kept {
            if !keep_out_of_swap() {
                return;
            }
            // SAFETY: as mlockall.
            let _locked_at_worst = unsafe { libc::munlockall() };
        }
        // SAFETY: malloc_trim takes a number, may be called at any time and from any thread, and touches free memory only.
        let _whether_any = unsafe { libc::malloc_trim(0) };
        if kept {
            let _just_allowed = keep_out_of_swap();
        }
    }
}

/// Bytes that the program has asked the allocator for and not given back; `None` where the allocator does not tell.
pub fn allocated() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallinfo2 takes nothing, adds up under the allocator's own locks, and returns numbers.
        let all = unsafe { libc::mallinfo2() };
        u64::try_from(all.uordblks.checked_add(all.hblkhd)?).ok()
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Has the allocator give large blocks back. By itself glibc keeps, in each thread, as much as was once freed.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt stores a number under the allocator's own lock; no memory of ours is involved.
        let _told = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK) };
    }
}

/// Waits until one of the descriptors is ready, or for `timeout_ms` milliseconds (-1: for ever).
pub(crate) fn wait(waited: &mut [Waited<'_>], timeout_ms: i32) -> io::Result<()> {
    let none = libc::pollfd { fd: -1, events: 0, revents: 0 };
    let (mut few, mut many) = ([none; FEW], Vec::new());
    if waited.len() > FEW {
        many.resize(waited.len(), none);
    }
    let fds = if waited.len() > FEW { &mut many[..] } else { &mut few[..] };
    for (slot, waited) in fds.iter_mut().zip(waited.iter()) {
        *slot = libc::pollfd { fd: waited.fd.as_raw_fd(), events: waited.events, revents: 0 };
    }
    // SAFETY: `fds` is an initialised slice of at least as many elements that outlives the call.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), waited.len() as libc::nfds_t, timeout_ms) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (slot, waited) in fds.iter().zip(waited.iter_mut()) {
        waited.ready = slot.revents != 0;
    }
    Ok(())
}

/// Most descriptors that [`Epoll::ready`] names at once.
pub(crate) const MOST_READY: usize = 64;

/// Tells which of many descriptors are readable, and becomes readable with them.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes flags.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made it, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Has `fd` told of as `number`, until all its copies are closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: number };
        // SAFETY: `event` is initialised and outlives the call.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Adds the numbers of those that are readable now to `numbers`.
    pub(crate) fn ready(&self, numbers: &mut Vec<usize>) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST_READY];
        let room = MOST_READY as libc::c_int;
        // SAFETY: `events` is initialised, has the length that is said, and outlives the call.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, 0) };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        };
        numbers.extend(events.iter().take(count).filter_map(|event| usize::try_from(event.u64).ok()));
        Ok(())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes one thread out of [`wait`]; wake-ups before it looks are merged into one.
#[derive(Debug)]
pub(crate) struct Wake(File);

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(File::from(fd)))
    }

    pub(crate) fn wake(&self) {
        // The only possible failure is a full counter: then the thread is being woken already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes back all wake-ups so far.
    pub(crate) fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }

    /// Sleeps until woken; what woke it stays until it is cleared.
    pub(crate) fn wait(&self) -> io::Result<()> {
        wait(&mut [Waited::readable(self.fd())], -1)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nice value of the calling thread (proc_pid_stat(5), field 19).
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn a_packet_thread_comes_before_others_where_that_is_allowed() {
        let before = nice();
        let (allowed, after) = std::thread::spawn(|| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            // CAP_SYS_NICE, capabilities(7).
            let allowed = u64::from_str_radix(effective.trim(), 16).unwrap() >> 23 & 1 == 1;
            run_before_others();
            (allowed, nice())
        })
        .join()
        .unwrap();
        if !allowed {
            eprintln!("SKIP: CAP_SYS_NICE is not there");
            return;
        }
        assert_eq!((after, nice()), (NICE, before), "the thread, and no other");
    }

    #[test]
    fn a_wake_is_seen_until_cleared() {
        let wake = Wake::new().unwrap();
        let ready = |timeout| {
            let mut waited = [Waited::readable(wake.fd())];
            wait(&mut waited, timeout).unwrap();
            waited[0].ready
        };
        assert!(!ready(0));
        wake.wake();
        wake.wake();
        assert!(ready(-1));
        wake.clear();
        assert!(!ready(0));
    }
}
