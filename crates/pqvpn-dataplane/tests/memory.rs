// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is freed is the system's again; a process of its own, so that nothing else allocates meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{fs, hint::black_box, thread};

/// As a proof of work takes.
const BLOCK: usize = 8 << 20;

/// Private memory of this process, in bytes.
fn anonymous() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_thread_that_took_much_gives_it_back_each_time() {
    pqvpn_dataplane::give_back_large_blocks();
    let before = anonymous();
    let worker = move || {
        for _ in 0..4 {
            drop(black_box(vec![1_u8; BLOCK]));
            assert!(anonymous() < before + BLOCK / 2);
        }
    };
    thread::spawn(worker).join().unwrap();
}
