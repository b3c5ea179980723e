// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets to our overlay addresses come by the tunnel or from this host itself.
//!
//! Linux takes packets for any of its addresses by any interface and answers ARP for them there, so a neighbour could
//! speak to services behind the mesh in a member's name (as in CVE-2019-14899). No route or rule can come before the
//! local table, so this takes two nftables of our own: one drops such packets before anything sees them, one such ARP.
//! The kernel removes a table with its owner, whatever ends it (`NFT_TABLE_F_OWNER`, Linux 5.12), and nobody else's flush
//! removes it; an older kernel keeps it until the next start, where it keeps out what nobody has any more.

mod message;
mod sweep;

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use self::message::{Answer, Batch, Family, answers};
pub(super) use self::sweep::sweep;

/// How long the kernel may take; it answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// There is no such table.
const NOBODY: i32 = Errno::ENOENT as i32;

/// The tables in force; they go with it.
#[derive(Debug, Default)]
pub(super) struct Wall(Option<Standing>);

#[derive(Debug)]
struct Standing {
    socket: Arc<OwnedFd>,
    table: String,
    index: u32,
    addresses: Vec<IpAddr>,
    /// The table of each family, and whether it is bound to the socket.
    tables: Vec<(Family, bool)>,
}

impl Wall {
    /// Keeps out what comes to `addresses` by another interface than the one with this name and index.
    ///
    /// # Errors
    /// The kernel refuses: nothing, or ARP alone, is not kept out.
    pub(super) async fn stand(&mut self, interface: &str, index: u32, addresses: &[IpAddr]) -> io::Result<()> {
        if self.0.as_ref().is_some_and(|standing| standing.index == index && standing.addresses == addresses) {
            return Ok(());
        }
        let table = format!("pqvpn-{interface}");
        // What stands is replaced at once: nothing gets in between.
        let (socket, mut tables) = match self.0.take() {
            Some(before) => (before.socket, before.tables),
            None => (Arc::new(open()?), Vec::new()),
        };
        let mut outcome = Ok(());
        for family in [Family::Inet, Family::Arp] {
            let before = tables.iter().position(|(there, _)| *there == family).map(|at| tables.remove(at));
            let owned = before.map(|(_, owned)| owned);
            match replace(&socket, family, &table, index, addresses, owned).await {
                Ok(owned) => tables.push((family, owned)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.0 = Some(Standing { socket, table, index, addresses: addresses.to_vec(), tables });
        if outcome.is_err() {
            // To be tried again with the next plan.
            self.0.iter_mut().for_each(|standing| standing.addresses.clear());
        }
        outcome
    }

    /// Takes the tables away.
    pub(super) async fn remove(&mut self) {
        let Some(Standing { socket, table, tables, .. }) = self.0.take() else { return };
        for (family, _) in tables {
            if let Err(error) = send(&socket, Batch::new().delete_table(family, &table).end()).await {
                tracing::warn!(%error, table, "an nftables table was not removed");
            }
        }
    }
}

/// Puts the table of one family in force, in place of that of before; says whether it goes with the socket.
async fn replace(
    socket: &Arc<OwnedFd>,
    family: Family,
    table: &str,
    index: u32,
    addresses: &[IpAddr],
    before: Option<bool>,
) -> io::Result<bool> {
    let batch = |owned: bool| {
        let batch = if before.is_some() { Batch::new().delete_table(family, table) } else { Batch::new() };
        addresses.iter().fold(batch.table(family, table, owned), |batch, address| match (family, address) {
            (Family::Inet, address) => batch.drop_packets(table, index, *address),
            (Family::Arp, IpAddr::V4(address)) => batch.drop_arp(table, *address),
            (Family::Arp, IpAddr::V6(_)) => batch,
        })
    };
    if before.is_none() {
        // One of a killed node, of a kernel that knows no owners.
        let left = send(socket, Batch::new().delete_table(family, table).end()).await;
        left.or_else(|error| if error.raw_os_error() == Some(NOBODY) { Ok(()) } else { Err(error) })?;
    }
    let owned = before.unwrap_or(true);
    match send(socket, batch(owned).end()).await {
        Ok(()) => Ok(owned),
        Err(error) if before.is_none() && is_unknown(&error) => send(socket, batch(false).end()).await.map(|()| false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel does not know what was asked for.
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [Errno::EINVAL, Errno::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|code| unknown.contains(&Errno::from_raw(code)))
}

/// A socket to the packet filter of this thread's namespace.
fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(patience, 0))?;
    Ok(socket)
}

/// Has the kernel do all of a batch, or nothing.
async fn send(socket: &Arc<OwnedFd>, batch: Batch) -> io::Result<()> {
    let socket = Arc::clone(socket);
    // A transaction may wait for a grace period of the kernel.
    let sent = tokio::task::spawn_blocking(move || exchange(&socket, &batch)).await;
    sent.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn exchange(socket: &OwnedFd, batch: &Batch) -> io::Result<()> {
    let (kernel, mut buffer) = (NetlinkAddr::new(0, 0), vec![0; 1 << 16]);
    // Late answers to a batch of before are not for this one.
    while recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(batch.bytes())], &[], MsgFlags::empty(), Some(&kernel))?;
    let (mut left, mut outcome) = (batch.asked(), Ok(()));
    // Each message is answered, those after a refused one as well; a batch that is refused as a whole is answered once.
    while left > 0 {
        let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for Answer { code, is_last } in answers(buffer.get(..read).unwrap_or_default()) {
            left = if is_last { 0 } else { left.saturating_sub(1) };
            if code != 0 && outcome.is_ok() {
                outcome = Err(io::Error::from_raw_os_error(code));
            }
        }
    }
    outcome
}

#[cfg(test)]
#[path = "tests/wall.rs"]
mod tests;
