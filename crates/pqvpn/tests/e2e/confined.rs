// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemon takes away from itself, as root as well: seen from outside, and with everything still working.

use std::{collections::BTreeSet, fs};

use crate::rig::{Outer, Pair, usable};

/// `CAP_NET_BIND_SERVICE` and `CAP_NET_ADMIN`.
const KEPT: u64 = 1 << 10 | 1 << 12;
/// `CAP_IPC_LOCK`, where root may not raise the limit of locked memory, as in some containers.
const LOCK: u64 = 1 << 14;
/// Names of packet threads begin so.
const PACKET_THREADS: [&str; 2] = ["pqvpn-net-", "pqvpn-out-"];

/// What the kernel says of one thread.
struct Thread {
    name: String,
    status: String,
}

impl Thread {
    fn all_of(pid: u32) -> Vec<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let read = |file: fs::DirEntry| fs::read_to_string(file.path().join("status")).ok();
        let of = |status: String| Self { name: field(&status, "Name"), status };
        threads.filter_map(|thread| read(thread.unwrap()).map(of)).collect()
    }

    fn number(&self, name: &str, base: u32) -> u64 {
        u64::from_str_radix(&field(&self.status, name), base).unwrap()
    }
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

#[test]
fn every_thread_has_two_capabilities_and_packet_threads_few_system_calls() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    for node in [&pair.a, &pair.b] {
        let threads = Thread::all_of(node.daemon().pid());
        let mut packet_threads = BTreeSet::new();
        let confinement = node.status().confinement.unwrap();
        let locks = confinement.capabilities.iter().any(|name| name == "ipc_lock");
        let kept = if locks { KEPT | LOCK } else { KEPT };
        for thread in &threads {
            for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
                let capabilities = thread.number(set, 16);
                assert_eq!(capabilities & !kept, 0, "{set} of {}: {capabilities:x}", thread.name);
            }
            assert_eq!(thread.number("CapEff", 16), kept, "{} has the rights it works with", thread.name);
            assert_eq!(thread.number("NoNewPrivs", 10), 1, "{}", thread.name);
            let is_packet_thread = PACKET_THREADS.iter().any(|start| thread.name.starts_with(start));
            assert_eq!(thread.number("Seccomp", 10), if is_packet_thread { 2 } else { 0 }, "{}", thread.name);
            packet_threads.extend(is_packet_thread.then(|| thread.name.clone()));
        }
        assert_eq!(packet_threads.len(), 2, "{packet_threads:?}");
        assert_eq!(confinement.capabilities[..2], ["net_admin", "net_bind_service"]);
        assert!(confinement.packet_threads && confinement.files && confinement.memory, "{confinement:?}");
        assert!(confinement.missing.is_empty(), "{confinement:?}");
    }
}
