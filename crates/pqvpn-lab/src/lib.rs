// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks of namespaces on one Linux machine, for tests, benches and the demo: hosts, switches, impairments, daemons.
//!
//! Everything is made by netlink, without an `ip` binary, and as root or in a user namespace
//! ([`netns::acquire`]). Nothing has a name outside this process: a namespace lives as long as its thread and the
//! processes in it, so it is gone whichever way the process ends. Children are killed on drop, on Ctrl-C
//! ([`process::kill_children_on_interrupt`]) and, where `setpriv` exists, by the kernel when this process dies.
#![forbid(unsafe_code)]

pub mod folder;
pub mod impair;
pub mod nat;
pub mod netns;
pub mod process;
pub mod report;
pub mod topology;
