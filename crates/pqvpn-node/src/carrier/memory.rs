// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which rung worked in which network, on disk. A network is known by its router and our subnet in it, hashed with a key
//! that is made from the identity: who finds the file learns nowhere from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::ladder::Rung;
use crate::{host::Surroundings, store};

const FILE: &str = "carriers.json";
/// Version 1 had hashes without a key, of less.
const VERSION: u32 = 2;
const LABEL: &[u8] = b"pqvpn network v2";
/// Networks remembered, the newest.
const MAX_NETWORKS: usize = 64;
const MAX_BYTES: u64 = 64 * 1024;

/// Names a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint(String);

/// The key of fingerprints.
pub(super) struct NetworkKey(hmac::Key);

impl NetworkKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The name of the network that packets to everybody leave by.
    pub(super) fn fingerprint(&self, around: &Surroundings) -> Fingerprint {
        let mac = around.router_mac.as_ref().map(|mac| HEXLOWER.encode(mac));
        // The host's own number in the network changes with every lease.
        let subnet = around.subnet.map(|subnet| subnet.to_string());
        let parts = [Some(around.router.to_string()), mac, subnet].map(Option::unwrap_or_default);
        let tag = hmac::sign(&self.0, &[LABEL, b" ", parts.join(" ").as_bytes()].concat());
        Fingerprint(HEXLOWER.encode(tag.as_ref().get(..16).unwrap_or_default()))
    }
}

impl std::fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetworkKey(redacted)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    network: Fingerprint,
    rung: Rung,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    networks: Vec<Entry>,
}

fn parse(bytes: &[u8]) -> Vec<Entry> {
    let kept: Option<Kept> = serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(%error, "the file of carriers is not read"))
        .ok();
    let mut networks = kept.filter(|kept| kept.version == VERSION).map(|kept| kept.networks).unwrap_or_default();
    networks.drain(..networks.len().saturating_sub(MAX_NETWORKS));
    networks
}

/// Reads any bytes as the file.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    assert!(parse(data).len() <= MAX_NETWORKS);
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    file: Option<PathBuf>,
    /// The newest last.
    networks: Vec<Entry>,
}

impl Memory {
    /// Reads it; what cannot be read is as if nothing was remembered.
    pub(super) async fn load(dir: &Path) -> Self {
        let file = dir.join(FILE);
        let path = file.clone();
        let read = spawn_blocking(move || store::read_private(&path, MAX_BYTES)).await;
        let networks = match read {
            Ok(Ok(bytes)) => parse(&bytes),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        Self { file: Some(file), networks }
    }

    pub(super) fn rung(&self, network: &Fingerprint) -> Option<Rung> {
        self.networks.iter().find(|entry| entry.network == *network).map(|entry| entry.rung)
    }

    /// Notes what worked; UDP, which is tried anyhow, is not written down. Gives what has to be written.
    pub(super) fn note(&mut self, network: Fingerprint, rung: Rung) -> Option<Writing> {
        if self.rung(&network).unwrap_or(Rung::Udp) == rung {
            return None;
        }
        self.networks.retain(|entry| entry.network != network);
        if rung != Rung::Udp {
            self.networks.push(Entry { network, rung });
        }
        self.networks.drain(..self.networks.len().saturating_sub(MAX_NETWORKS));
        let kept = Kept { version: VERSION, networks: self.networks.clone() };
        Some(Writing { file: self.file.clone()?, bytes: serde_json::to_vec(&kept).ok()? })
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Writing {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Writing {
    /// Writes it, away from the runtime's thread.
    pub(super) async fn write(self) {
        let written = spawn_blocking(move || store::write_atomic(&self.file, &self.bytes, 0o600)).await;
        let written = written.map_err(io::Error::other).and_then(|written| written.map_err(io::Error::other));
        if let Err(error) = written {
            tracing::debug!(%error, "which carrier works here is not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn around(router: u8, mac: u8) -> Surroundings {
        Surroundings {
            router: IpAddr::from([192, 168, router, 1]),
            router_mac: Some(vec![2, 0, 0, 0, 0, mac]),
            subnet: Some(format!("192.168.{router}.0/24").parse().unwrap()),
        }
    }

    fn network(router: u8, mac: u8) -> Fingerprint {
        NetworkKey::new(&[1; 32]).fingerprint(&around(router, mac))
    }

    #[test]
    fn networks_that_are_numbered_alike_are_told_apart_and_only_who_has_the_key_can_name_them() {
        assert_eq!(network(1, 9), network(1, 9));
        assert_ne!(network(1, 9), network(1, 8), "another router of the same address");
        assert_ne!(network(1, 9), network(2, 9));
        assert_ne!(network(1, 9), NetworkKey::new(&[2; 32]).fingerprint(&around(1, 9)));
        let wider = Surroundings { subnet: Some("192.168.0.0/16".parse().unwrap()), ..around(1, 9) };
        assert_ne!(NetworkKey::new(&[1; 32]).fingerprint(&wider), network(1, 9));
    }

    #[tokio::test]
    async fn a_network_is_remembered_over_a_restart_until_udp_works_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).await;
        assert!(memory.note(network(1, 9), Rung::Udp).is_none(), "nothing to write down");
        memory.note(network(1, 9), Rung::Wss).unwrap().write().await;
        assert!(memory.note(network(1, 9), Rung::Wss).is_none());
        let mut memory = Memory::load(dir.path()).await;
        assert_eq!(memory.rung(&network(1, 9)), Some(Rung::Wss));
        assert_eq!((memory.rung(&network(2, 9)), memory.rung(&network(1, 8))), (None, None));
        memory.note(network(1, 9), Rung::Udp).unwrap().write().await;
        assert_eq!(Memory::load(dir.path()).await.rung(&network(1, 9)), None);
    }

    #[tokio::test]
    async fn few_are_remembered_and_a_broken_file_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).await;
        let mut last = None;
        for router in 0..=u8::MAX {
            last = memory.note(network(router, 9), Rung::Quic);
        }
        last.unwrap().write().await;
        let memory = Memory::load(dir.path()).await;
        assert_eq!(memory.networks.len(), MAX_NETWORKS);
        assert_eq!(memory.rung(&network(255, 9)), Some(Rung::Quic));
        std::fs::write(dir.path().join(FILE), b"{\"version\":2,\"networks\":[{}]}").unwrap();
        assert!(Memory::load(dir.path()).await.networks.is_empty());
    }
}
