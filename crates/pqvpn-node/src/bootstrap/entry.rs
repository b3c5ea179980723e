// SPDX-License-Identifier: MIT OR Apache-2.0
//! One place to start discovery from: `pqvpn://id@host:port`.

use std::{fmt, str::FromStr};

use pqvpn_crypto::peer_id::PeerId;

use crate::config::{Endpoint, peer_id};

/// Scheme of an entry.
const SCHEME: &str = "pqvpn://";

/// A node to start discovery from: who must answer, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootstrapEntry {
    /// The identity that must answer there.
    pub id: PeerId,
    /// Where it is.
    pub endpoint: Endpoint,
}

impl fmt::Display for BootstrapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.id, self.endpoint)
    }
}

impl FromStr for BootstrapEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Without the key whoever answers at the address would be believed.
        let expected = "expected \"pqvpn://<64 hex digits of the PeerID>@host:port\"";
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(match text.parse::<Endpoint>() {
                Ok(endpoint) => format!("{expected}: {endpoint} alone does not say who must answer there"),
                Err(_) => expected.to_owned(),
            });
        };
        let Some((id, endpoint)) = rest.split_once('@') else {
            return Err(format!("{expected}: the PeerID is missing"));
        };
        Ok(Self { id: peer_id(id)?, endpoint: endpoint.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_host_is_read_back_as_written() {
        let id = "ab".repeat(32);
        for host in ["198.51.100.7:41641", "[2001:db8::1]:9", "seed.example:41641"] {
            let text = format!("pqvpn://{id}@{host}");
            assert_eq!(text.parse::<BootstrapEntry>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_entry_needs_the_pinned_id_and_a_whole_endpoint() {
        let id = "ab".repeat(32);
        for (text, needle) in [
            ("seed.example:41641".to_owned(), "who must answer"),
            ("pqvpn://seed.example:41641".to_owned(), "PeerID is missing"),
            (format!("http://{id}@seed.example:1"), "expected \"pqvpn://"),
            (format!("pqvpn://{}@seed.example:1", "ab".repeat(31)), "found 62 characters"),
            (format!("pqvpn://{}@seed.example:1", "AB".repeat(32)), "uppercase"),
            (format!("pqvpn://{id}@seed.example"), "found no port"),
            (format!("pqvpn://{id}@2001:db8::1"), "needs brackets"),
            (format!("pqvpn://{id}@seed.example:0"), "1 to 65535"),
            (format!("pqvpn://{id}@seed.example:1/x"), "1 to 65535"),
            (format!("pqvpn://{id}@0.0.0.0:1"), "not an address"),
            (format!("pqvpn://{id}@"), "expected \"host:port\""),
            (String::new(), "expected \"pqvpn://"),
        ] {
            let error = text.parse::<BootstrapEntry>().unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }
}
