// SPDX-License-Identifier: MIT OR Apache-2.0
//! A router that opens ports when it is asked: `miniupnpd`, as many routers at home run it.

use std::fmt;
use std::fs;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use super::{LAN, NatError, WAN};
use crate::folder::Folder;
use crate::impair;
use crate::netns::Namespace;
use crate::process::{self, Daemon};

/// How long the daemon may take to start.
const START: Duration = Duration::from_secs(10);
/// Table of its rules.
const TABLE: &str = "inet miniupnpd";

/// What a router is asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// RFC 6887.
    Pcp,
    /// RFC 6886, at a router that says nothing to anything newer.
    NatPmp,
    /// UPnP alone.
    Upnp,
}

impl Asking {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Asking {
    type Err = NatError;

    fn from_str(text: &str) -> Result<Self, NatError> {
        let named = Self::ALL.into_iter().find(|asking| asking.name().eq_ignore_ascii_case(text));
        named.ok_or_else(|| NatError::UnknownAsking(text.to_owned()))
    }
}

/// The daemon of one router; its rules go with the namespace.
#[derive(Debug)]
pub struct Forwarding {
    namespace: Namespace,
    daemon: Daemon,
    _files: Folder,
}

impl Forwarding {
    /// Starts it on a router with the interfaces of [`super::Site`], open to one way of asking.
    ///
    /// # Errors
    /// [`NatError`]: no `miniupnpd`, or it does not start.
    pub fn start(router: &Namespace, asking: Asking) -> Result<Self, NatError> {
        impair::nft(router, &rules(asking))?;
        let files = Folder::create("pqvpn-miniupnpd")?;
        let config = files.path().join("miniupnpd.conf");
        fs::write(&config, configuration(asking))?;
        let mut command = Command::new("/usr/sbin/miniupnpd");
        command.arg("-d").arg("-f").arg(&config).arg("-P").arg(files.path().join("pid"));
        let daemon = Daemon::spawn(router, "miniupnpd", command)?;
        daemon.wait_until("miniupnpd to listen", START, || listens(router, asking).then_some(()))?;
        Ok(Self { namespace: router.clone(), daemon, _files: files })
    }

    /// How many ports are open.
    ///
    /// # Errors
    /// [`NatError`].
    pub fn open_ports(&self) -> Result<usize, NatError> {
        let mut command = Command::new("nft");
        command.args(["list", "table"]).args(TABLE.split(' '));
        let listed = process::run(&self.namespace, command, START)?;
        Ok(listed.stdout.lines().filter(|line| line.contains("dnat")).count())
    }

    /// What the daemon said.
    #[must_use]
    pub fn said(&self) -> String {
        self.daemon.stderr() + &self.daemon.stdout()
    }
}

/// The chains the daemon fills, and what a router's own rules need: forwarded ports go through its firewall.
fn rules(asking: Asking) -> String {
    // An old router knows no version 2: nothing of it comes through.
    let old = match asking {
        Asking::NatPmp => format!(
            " chain old {{\n  type filter hook input priority -10; policy accept;\n  \
             iifname \"{LAN}\" udp dport 5351 @th,64,8 2 drop\n }}\n"
        ),
        Asking::Pcp | Asking::Upnp => String::new(),
    };
    format!(
        "table {TABLE} {{\n chain miniupnpd {{ }}\n chain prerouting_miniupnpd {{ }}\n chain postrouting_miniupnpd {{ }}\n \
         chain forward {{\n  type filter hook forward priority 0; policy accept;\n  jump miniupnpd\n }}\n \
         chain prerouting {{\n  type nat hook prerouting priority dstnat; policy accept;\n  jump prerouting_miniupnpd\n }}\n \
         chain postrouting {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
         jump postrouting_miniupnpd\n }}\n{old}}}\n\
         insert rule ip filter cfwd iifname \"{WAN}\" ct status dnat accept\n"
    )
}

fn configuration(asking: Asking) -> String {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let upnp = asking == Asking::Upnp;
    format!(
        "ext_ifname={WAN}\nlistening_ip={LAN}\nenable_upnp={}\nenable_natpmp={}\nipv6_disable=yes\n\
         secure_mode=yes\nnotify_interval=60\nupnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\n\
         uuid=00000000-0000-0000-0000-000000000001\nallow 1024-65535 0.0.0.0/0 1024-65535\n\
         deny 0-65535 0.0.0.0/0 0-65535\n",
        yes(upnp),
        yes(!upnp)
    )
}

/// Whether somebody listens where questions go.
fn listens(router: &Namespace, asking: Asking) -> bool {
    let port = if asking == Asking::Upnp { ":1900" } else { ":5351" };
    let mut command = Command::new("ss");
    command.args(["-Hlun"]);
    process::run(router, command, START).is_ok_and(|sockets| sockets.stdout.contains(port))
}
