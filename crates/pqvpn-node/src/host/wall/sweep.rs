// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables of a killed node, of a kernel that knows no owners.

use std::{io, sync::Arc};

use super::{
    NOBODY, is_unknown,
    message::{Batch, Family},
    open, send,
};

/// Removes the tables for the interface of this name; says which were there. Those of a daemon that runs are its own, and
/// the kernel keeps them.
pub(in crate::host) async fn sweep(interface: &str) -> io::Result<Vec<String>> {
    let socket = Arc::new(open()?);
    let (table, mut removed) = (format!("pqvpn-{interface}"), Vec::new());
    for (family, name) in [(Family::Inet, "inet"), (Family::Arp, "arp")] {
        match send(&socket, Batch::new().delete_table(family, &table).end()).await {
            Ok(()) => removed.push(format!("nftables table {name} {table}")),
            // A kernel without nftables, or without them for ARP, has none.
            Err(error) if error.raw_os_error() == Some(NOBODY) || is_unknown(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}
