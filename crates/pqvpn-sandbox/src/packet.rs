// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packet threads: the system calls of their loop, of the allocator and of a thread's end.
//!
//! What else is called fails with `EPERM` and changes nothing: a fault in a parser gets no file, no program, no socket. It
//! does not kill, as a library that one day calls something new must not take the mesh down. Threads share memory, so this
//! is one step more to take, and no wall.

use std::{collections::BTreeMap, env::consts::ARCH, io, sync::Once, thread};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Packets and events.
const LOOP: [libc::c_long; 16] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    libc::SYS_close,
];
/// What the standard library, the allocator and the end of a thread need.
const RUNTIME: [libc::c_long; 23] = [
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_set_robust_list,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_getaffinity,
];
/// The older twins of `ppoll` and `epoll_pwait`, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD: [libc::c_long; 2] = [libc::SYS_poll, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const OLD: [libc::c_long; 0] = [];
/// Memory, but none that can be run: the third argument has no `PROT_EXEC`.
const MEMORY: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// Confines the calling thread; says once per process when that fails, and goes on.
pub fn packet_thread() {
    static TOLD: Once = Once::new();
    if let Err(error) = filter().and_then(|filter| apply_filter(&filter).map_err(|error| error.to_string())) {
        TOLD.call_once(|| tracing::warn!(error, "packet threads may make any system call"));
    }
}

/// Tries it, on a thread that ends with that.
pub(crate) fn is_possible() -> Result<(), String> {
    let filter = filter()?;
    let tried = thread::Builder::new().spawn(move || apply_filter(&filter).map_err(|error| error.to_string()));
    let ended = tried.map_err(|error| error.to_string())?.join();
    ended.unwrap_or_else(|_| Err(io::Error::other("the trial failed").to_string()))
}

fn filter() -> Result<BpfProgram, String> {
    build().map_err(|error| error.to_string())
}

fn build() -> Result<BpfProgram, BackendError> {
    let not_executable = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into()),
        0,
    )?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        LOOP.iter().chain(&RUNTIME).chain(&OLD).map(|&call| (call, Vec::new())).collect();
    for call in MEMORY {
        rules.insert(call, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{fs, net::UdpSocket, process::Command};

    use super::*;

    #[test]
    fn a_confined_thread_gets_no_file_no_socket_and_no_program_and_still_sends() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let confined = thread::spawn(move || {
            apply_filter(&build().unwrap()).unwrap();
            let refused = [
                fs::read("/etc/hostname").map(drop),
                UdpSocket::bind("127.0.0.1:0").map(drop),
                Command::new("/bin/true").status().map(drop),
                fs::create_dir("/tmp/never").map(drop),
                thread::Builder::new().spawn(|| {}).map(drop),
            ];
            let kinds: Vec<_> = refused.map(|tried| tried.map_err(|error| error.kind())).into();
            let grown = vec![7_u8; 8 << 20];
            socket.send_to(&grown[..100], to).unwrap();
            let mut buffer = [0; 200];
            (kinds, socket.recv(&mut buffer).unwrap())
        });
        let (kinds, received) = confined.join().unwrap();
        assert!(kinds.iter().all(|tried| *tried == Err(io::ErrorKind::PermissionDenied)), "{kinds:?}");
        assert_eq!(received, 100);
        assert!(fs::read("/proc/self/status").is_ok(), "the others go on as before");
    }
}
