// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which rung worked in which network, on disk. A network is known by its router and our place in it, hashed.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::ladder::Rung;
use crate::{host::Gateway, store};

const FILE: &str = "carriers.json";
const VERSION: u32 = 1;
/// Networks remembered, the newest.
const MAX_NETWORKS: usize = 64;
const MAX_BYTES: u64 = 64 * 1024;

/// Names a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint(String);

impl Fingerprint {
    /// That of the network whose router packets to everybody go to.
    pub(super) fn of(gateway: &Gateway) -> Self {
        let (router, own) = (gateway.router.octets(), gateway.own.octets());
        // The host's own number in the network changes with every lease.
        let place = [&b"pqvpn network v1"[..], &router, &own[..3]].concat();
        Self(HEXLOWER.encode(digest(&SHA256, &place).as_ref().get(..16).unwrap_or_default()))
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
        let kept: Option<Kept> = match read {
            Ok(Ok(bytes)) => serde_json::from_slice(&bytes)
                .inspect_err(|error| tracing::warn!(%error, "the file of carriers is not read"))
                .ok(),
            Ok(Err(_)) | Err(_) => None,
        };
        let mut networks = kept.filter(|kept| kept.version == VERSION).map(|kept| kept.networks).unwrap_or_default();
        networks.drain(..networks.len().saturating_sub(MAX_NETWORKS));
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
    use super::*;

    fn network(router: u8, own: u8) -> Fingerprint {
        Fingerprint::of(&Gateway { router: [192, 168, router, 1].into(), own: [192, 168, router, own].into() })
    }

    #[tokio::test]
    async fn a_network_is_remembered_over_a_restart_until_udp_works_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).await;
        assert!(memory.note(network(1, 9), Rung::Udp).is_none(), "nothing to write down");
        memory.note(network(1, 9), Rung::Wss).unwrap().write().await;
        assert!(memory.note(network(1, 9), Rung::Wss).is_none());
        let mut memory = Memory::load(dir.path()).await;
        assert_eq!(memory.rung(&network(1, 200)), Some(Rung::Wss), "another lease in the same network");
        assert_eq!(memory.rung(&network(2, 9)), None);
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
        std::fs::write(dir.path().join(FILE), b"{\"version\":1,\"networks\":[{}]}").unwrap();
        assert!(Memory::load(dir.path()).await.networks.is_empty());
    }
}
