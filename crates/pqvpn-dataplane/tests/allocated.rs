// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the allocator says is in use; a process of its own, so that nothing else allocates meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::{hint::black_box, thread};

#[test]
fn what_is_asked_for_is_told_until_it_is_given_back_whichever_thread_asked() {
    let allocated = || pqvpn_dataplane::allocated().unwrap();
    let take = move || {
        let (before, bytes) = (allocated(), 1 << 20);
        let blocks: Vec<_> = (0..bytes / 8192).map(|_| black_box(vec![1_u8; 8192])).collect();
        let large = black_box(vec![1_u8; bytes]);
        assert!(allocated() >= before + 2 * bytes as u64 - 100_000);
        drop((blocks, large));
        assert!(allocated() < before + bytes as u64 / 2);
    };
    take();
    thread::spawn(take).join().unwrap();
}
