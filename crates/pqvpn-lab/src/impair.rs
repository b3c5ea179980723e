// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a link bad: loss, black holes, rate limits, no offloads. Uses the `nft`, `tc` and `ethtool` programs.
//!
//! Rules act in the namespace of the interface they are given, and go when their handle is dropped.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::netns::{Namespace, NetnsError};
use crate::topology::Interface;

mod delay;

pub use delay::{Delay, delay};

/// Why a link cannot be made bad.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImpairError {
    /// The namespace itself.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The program is not installed.
    #[error("{program} is not installed (Debian package {package}), so this impairment cannot be made")]
    Missing {
        /// Which program.
        program: &'static str,
        /// Which Debian package has it.
        package: &'static str,
    },
    /// The program could not be run.
    #[error("cannot run {program}: {error}")]
    Run {
        /// Which program.
        program: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The program refused.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// Which packets of an interface are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
}

/// An impairment in force until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the impairment"]
pub struct Impairment {
    namespace: Namespace,
    /// Standard input of `nft` that takes the rules away again.
    undo: String,
}

impl Impairment {
    /// Ends it now, telling of failure.
    ///
    /// # Errors
    /// [`ImpairError`].
    pub fn end(mut self) -> Result<(), ImpairError> {
        let undo = std::mem::take(&mut self.undo);
        nft(&self.namespace, &undo)
    }
}

impl Drop for Impairment {
    fn drop(&mut self) {
        if !self.undo.is_empty() {
            // The namespace may be going down too, and its rules with it.
            _ = nft(&self.namespace, &self.undo);
        }
    }
}

/// Drops every packet of an interface: a black hole nobody announces.
///
/// # Errors
/// [`ImpairError`].
pub fn black_hole(interface: &Interface, direction: Direction) -> Result<Impairment, ImpairError> {
    rule(interface, direction, "drop")
}

/// Drops a random share of the packets, `per_mille` in a thousand.
///
/// # Errors
/// [`ImpairError`].
pub fn random_loss(interface: &Interface, direction: Direction, per_mille: u16) -> Result<Impairment, ImpairError> {
    rule(interface, direction, &format!("numgen random mod 1000 < {per_mille} drop"))
}

/// Drops IP packets longer than `mtu` bytes without an ICMP answer. A super-packet counts with its whole length:
/// switch offloads off on both ends first.
///
/// # Errors
/// [`ImpairError`].
pub fn mtu_black_hole(interface: &Interface, direction: Direction, mtu: u32) -> Result<Impairment, ImpairError> {
    rule(interface, direction, &format!("meta length > {mtu} drop"))
}

/// Drops what an `nft` match names.
///
/// # Errors
/// [`ImpairError`].
pub fn drop_matching(interface: &Interface, direction: Direction, what: &str) -> Result<Impairment, ImpairError> {
    rule(interface, direction, &format!("{what} drop"))
}

/// Drops UDP only: a network that lets nothing but TCP through.
///
/// # Errors
/// [`ImpairError`].
pub fn block_udp(interface: &Interface, direction: Direction) -> Result<Impairment, ImpairError> {
    rule(interface, direction, "meta l4proto udp drop")
}

/// Drops everything a router would forward between two addresses, both ways, and tells nobody.
///
/// # Errors
/// [`ImpairError`].
pub fn cut(router: &Namespace, a: Ipv4Addr, b: Ipv4Addr) -> Result<Impairment, ImpairError> {
    forward_rules(router, &format!("  ip saddr {a} ip daddr {b} drop\n  ip saddr {b} ip daddr {a} drop\n"))
}

/// Drops bursts of packets on their way to and from a router's interface, so that `per_mille` in a thousand are lost.
///
/// # Errors
/// [`ImpairError`].
pub fn burst_loss(interface: &Interface, burst: u32, per_mille: u32) -> Result<Impairment, ImpairError> {
    let every = burst.saturating_mul(1000) / per_mille.max(1);
    let name = interface.name();
    let rule = |side: &str| format!("  {side} \"{name}\" numgen inc mod {every} < {burst} drop\n");
    forward_rules(interface.namespace(), &(rule("iifname") + &rule("oifname")))
}

/// Lets a router forward what one of these `nft` matches names, and nothing else, to and from an interface; ICMP too.
///
/// # Errors
/// [`ImpairError`].
pub fn only(interface: &Interface, outwards: &[&str], inwards: &[&str]) -> Result<Impairment, ImpairError> {
    let name = interface.name();
    let mut rules = "  meta l4proto { icmp, ipv6-icmp } accept\n".to_owned();
    for (side, matches) in [("iifname", outwards), ("oifname", inwards)] {
        rules.extend(matches.iter().map(|this| format!("  {side} \"{name}\" {this} accept\n")));
        rules += &format!("  {side} \"{name}\" drop\n");
    }
    forward_rules(interface.namespace(), &rules)
}

/// Feeds a script to `nft -f -` inside a namespace: NAT types and whatever else a test needs.
///
/// # Errors
/// [`ImpairError`] with what `nft` said.
pub fn nft(namespace: &Namespace, script: &str) -> Result<(), ImpairError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    tool(namespace, "nft", "nftables", command, script)
}

/// Makes connection tracking forget every flow of a namespace, as a router that was restarted has.
///
/// # Errors
/// [`ImpairError::Missing`] without `conntrack`.
pub fn forget_flows(namespace: &Namespace) -> Result<(), ImpairError> {
    let mut command = Command::new("conntrack");
    command.arg("--flush");
    tool(namespace, "conntrack", "conntrack", command, "")
}

/// Limits what an interface sends to `rate` (as `tc` has it, e.g. `100mbit`) with at most `latency_ms` of queue.
/// Stays until the interface goes.
///
/// # Errors
/// [`ImpairError`].
pub fn rate_limit(interface: &Interface, rate: &str, latency_ms: u32) -> Result<(), ImpairError> {
    let latency = format!("{latency_ms}ms");
    let mut command = Command::new("tc");
    command.args(["qdisc", "replace", "dev", interface.name(), "root", "tbf", "rate", rate]);
    // The bucket must hold the largest super-packet, or tbf drops it.
    command.args(["burst", "128kb", "latency", &latency]);
    tool(interface.namespace(), "tc", "iproute2", command, "")
}

/// As [`rate_limit`] in kilobits, with a bucket of 10 ms or a few packets, so that short transfers are held to it too.
/// Offloads have to be off, or super-packets do not fit.
///
/// # Errors
/// [`ImpairError`].
pub fn slow_link(interface: &Interface, kilobits: u32, latency_ms: u32) -> Result<(), ImpairError> {
    let burst = (kilobits * 10 / 8).max(4 * 1514);
    let (rate, burst, latency) = (format!("{kilobits}kbit"), burst.to_string(), format!("{latency_ms}ms"));
    let mut command = Command::new("tc");
    command.args(["qdisc", "replace", "dev", interface.name(), "root", "tbf", "rate", &rate]);
    command.args(["burst", &burst, "latency", &latency]);
    tool(interface.namespace(), "tc", "iproute2", command, "")
}

/// How an interface cuts and joins packets (performance.md "Underlay modes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    /// As the kernel makes a veth: super-packets cross uncut.
    Default,
    /// Cut before the wire, joined after it: nearest to a real network card.
    Gro,
    /// Cut before the wire, never joined: the worst case.
    Off,
}

/// Switches the offloads of a veth end; do it on both.
///
/// # Errors
/// [`ImpairError::Missing`] without `ethtool`.
pub fn set_offloads(interface: &Interface, offloads: Offloads) -> Result<(), ImpairError> {
    let (cut, join) = match offloads {
        Offloads::Default => ("on", "off"),
        Offloads::Gro => ("off", "on"),
        Offloads::Off => ("off", "off"),
    };
    let mut command = Command::new("ethtool");
    command.args(["-K", interface.name(), "tso", cut, "gso", cut, "gro", join, "tx-udp-segmentation", cut]);
    tool(interface.namespace(), "ethtool", "ethtool", command, "")
}

/// Adds rules about what a router forwards, in a table of their own.
fn forward_rules(router: &Namespace, rules: &str) -> Result<Impairment, ImpairError> {
    let table = table();
    let script = format!(
        "table inet {table} {{\n chain c {{\n  type filter hook forward priority -300; policy accept;\n{rules} }}\n}}\n"
    );
    nft(router, &script)?;
    Ok(Impairment { namespace: router.clone(), undo: format!("delete table inet {table}\n") })
}

/// A name that no other table of this process has.
fn table() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("impair{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Adds one rule in a table of its own.
fn rule(interface: &Interface, direction: Direction, verdict: &str) -> Result<Impairment, ImpairError> {
    let table = table();
    let (hook, side) = match direction {
        Direction::In => ("prerouting", "iifname"),
        Direction::Out => ("postrouting", "oifname"),
    };
    let script = format!(
        "table inet {table} {{\n chain c {{\n  type filter hook {hook} priority -300; policy accept;\n  \
         {side} \"{}\" {verdict}\n }}\n}}\n",
        interface.name()
    );
    let namespace = interface.namespace().clone();
    nft(&namespace, &script)?;
    Ok(Impairment { namespace, undo: format!("delete table inet {table}\n") })
}

/// Runs a short program in a namespace and turns its failure into an error.
fn tool(
    namespace: &Namespace,
    program: &'static str,
    package: &'static str,
    mut command: Command,
    input: &str,
) -> Result<(), ImpairError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match namespace.spawn(command) {
        Ok(child) => child,
        Err(NetnsError::Spawn { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImpairError::Missing { program, package });
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early has more to say on standard error than "broken pipe".
        _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| ImpairError::Run { program, error })?;
    succeed(program, &output)
}

fn succeed(program: &'static str, output: &Output) -> Result<(), ImpairError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    Err(ImpairError::Failed { program, message })
}

#[cfg(test)]
mod tests;
