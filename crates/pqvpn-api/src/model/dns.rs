// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the `dns` resource answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Which names of members are answered, where, and how this host comes to know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Schema number, 1.
    pub schema: u32,
    /// The zone of all names.
    pub zone: String,
    /// As configured: `auto`, `off` or `resolv-conf`.
    pub mode: String,
    /// Who on this host asks for the zone: `nobody`, `untouched`, `systemd-resolved` or `resolv-conf`.
    pub host: String,
    /// The link or file changed for it.
    pub at: Option<String>,
    /// Where names are answered, on port 53.
    pub servers: Vec<DnsServer>,
    /// Names that can be looked up, sorted.
    pub names: Vec<DnsName>,
    /// Names of networks that several networks have: their members are found under `<name>-<start of the id>` only.
    pub ambiguous: Vec<String>,
    /// Queries since the start.
    pub queries: DnsQueries,
    /// Why the host does not know the names, though it should.
    pub trouble: Option<String>,
}

/// One address where names are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsServer {
    /// The address.
    pub address: IpAddr,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsName {
    /// The whole name, zone included.
    pub name: String,
    /// Its addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
}

/// Queries since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQueries {
    /// Answered with data.
    pub answered: u64,
    /// Answered with "no such name" or "no such record".
    pub negative: u64,
    /// Refused: not our zone, malformed.
    pub refused: u64,
    /// Left without an answer: not from this host, too many.
    pub dropped: u64,
}
