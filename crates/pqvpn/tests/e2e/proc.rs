// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says of a namespace: interfaces, addresses, routes, UDP counters. From /proc, without programs.

use std::{collections::BTreeMap, fs, process::Command};

use pqvpn_lab::{netns::Namespace, process::run};

use crate::rig::{LIMIT, TUN};

/// Links, addresses and routes of a namespace, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostState(Vec<String>);

/// UDP datagrams of one namespace, both IP versions, as its kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpCounters {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Dropped because a socket's receive buffer was full.
    pub(crate) receive_overflows: u64,
    /// Refused because a socket's send buffer was full.
    pub(crate) send_overflows: u64,
}

impl HostState {
    /// Looks at a namespace.
    pub(crate) fn of(namespace: &Namespace) -> Self {
        // /proc/net would be that of the process; the namespace is that of the thread.
        let read =
            |name: &'static str| namespace.run(move || fs::read_to_string(format!("/proc/thread-self/net/{name}")));
        let read = |name| read(name).unwrap().unwrap_or_default();
        let mut lines = Vec::new();
        // Counters stand behind the colon.
        lines
            .extend(read("dev").lines().filter_map(|line| line.split_once(':')).map(|(name, _)| format!("link{name}")));
        lines.extend(read("if_inet6").lines().map(|line| format!("inet6 {line}")));
        // Addresses and routes of every IPv4 table; inner nodes of the trie depend on its history.
        let leaves = |line: &&str| !line.contains("+--");
        lines.extend(read("fib_trie").lines().filter(leaves).map(|line| format!("fib {}", line.trim_start())));
        lines.extend(read("route").lines().map(|line| format!("route {line}")));
        lines.extend(read("ipv6_route").lines().map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Reference and use counters are columns 6 and 7.
            format!("route6 {} {} {} {}", fields[0], fields[1], fields[4], fields[9])
        }));
        // Rules and packet filters stand in no file; where the programs are missing they are not looked at.
        for (name, line) in [("rule4", "ip -4 rule"), ("rule6", "ip -6 rule"), ("nft", "nft list ruleset")] {
            lines.extend(said(namespace, line).lines().map(|line| format!("{name} {line}")));
        }
        // The kernel gives the underlay its link-local addresses in its own time.
        let own_time = |line: &String| line.starts_with("inet6 fe80") || line.starts_with("route6 f");
        lines.retain(|line| line.ends_with(TUN) || !own_time(line) || line.starts_with("route6 fd"));
        lines.sort();
        // The first rule ever set parts the main and local tables for good; until then both show what either has.
        lines.dedup();
        Self(lines)
    }

    /// Lines only `other` has, and lines only `self` has.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let new = other.0.iter().filter(|line| !self.0.contains(line)).map(|line| format!("+ {line}"));
        let gone = self.0.iter().filter(|line| !other.0.contains(line)).map(|line| format!("- {line}"));
        new.chain(gone).collect::<Vec<_>>().join("\n")
    }

    /// How many lines begin with `start`.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.0.iter().filter(|line| line.starts_with(start)).count()
    }

    /// Fails unless the namespace is as it was.
    pub(crate) fn assert_still(&self, namespace: &Namespace, when: &str) {
        let now = Self::of(namespace);
        assert!(*self == now, "{when}, {} differs:\n{}", namespace.name(), self.difference(&now));
    }
}

/// What a program prints in a namespace; nothing where it is not installed.
fn said(namespace: &Namespace, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    run(namespace, command, LIMIT).map(|finished| finished.stdout).unwrap_or_default()
}

impl UdpCounters {
    /// Reads them.
    pub(crate) fn of(namespace: &Namespace) -> Self {
        let (v4, v6) = namespace
            .run(|| {
                let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
                (read("snmp"), read("snmp6"))
            })
            .unwrap();
        let mut all = BTreeMap::new();
        let mut udp = v4.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
        if let (Some(names), Some(values)) = (udp.next(), udp.next()) {
            all.extend(names.zip(values).map(|(name, value)| (name.to_owned(), value.parse::<u64>().unwrap())));
        }
        for line in v6.lines().filter_map(|line| line.strip_prefix("Udp6")) {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(value)) = (words.next(), words.next()) {
                *all.entry(name.to_owned()).or_default() += value.parse::<u64>().unwrap();
            }
        }
        let get = |name: &str| all.get(name).copied().unwrap_or(0);
        Self {
            received: get("InDatagrams"),
            sent: get("OutDatagrams"),
            receive_overflows: get("RcvbufErrors"),
            send_overflows: get("SndbufErrors"),
        }
    }
}

/// Packets an interface's send queue dropped: for a TUN, those the daemon was too slow to read.
pub(crate) fn queue_drops(namespace: &Namespace, interface: &str) -> u64 {
    let dev = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = dev.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    // Eight receive columns, then bytes, packets, errs, drop.
    line.and_then(|line| line.split_whitespace().nth(11)).and_then(|count| count.parse().ok()).unwrap_or(0)
}
