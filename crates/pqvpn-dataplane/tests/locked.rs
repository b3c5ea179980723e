// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the allocator gives back while memory is kept out of swap. Alone in its process: the memory of all of it is measured.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;

use pqvpn_dataplane::{give_back_free_pages, keep_out_of_swap};

fn kilobytes(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn free_pages_are_given_back_though_memory_is_kept_out_of_swap_and_it_is_kept_so_afterwards() {
    if !keep_out_of_swap() {
        return eprintln!("SKIPPED: this user may lock no memory");
    }
    let pieces = || (0..1500).map(|_| (vec![1_u8; 40_000], vec![1_u8; 64])).unzip();
    let (long, short): (Vec<Vec<u8>>, Vec<Vec<u8>>) = pieces();
    let full = kilobytes("RssAnon");
    drop(long);
    give_back_free_pages();
    let left = kilobytes("RssAnon");
    assert!(left + 30_000 < full, "{full} kB before, {left} kB after");
    assert!(kilobytes("VmLck") > 0, "it is locked again");
    assert_eq!(short.len(), 1500);
}
