// SPDX-License-Identifier: MIT OR Apache-2.0
//! What remains of a rotation of this node's key on disk, and how one that was interrupted is finished or undone.
//!
//! ```text
//!  1 keystore.next written                     a crash until here: undone, the old identity goes on
//!  2 store: statements of every network and     ── one transaction: the rotation is a fact from here on ──
//!    the fact for the DHT, with the digest of 1
//!  3 members told
//!  4 keystore.old written, keystore.next        a crash until here: finished at the next start
//!    renamed to keystore
//! ```
//!
//! Where 2 fails and the store cannot even be read nobody knows which side of the line we are on: the node goes on with
//! the old key, tells nobody, and keeps both files for its next start.

use std::{collections::BTreeMap, path::Path};

use data_encoding::HEXLOWER;
use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_wire::{
    dht::{Fact, Rotation},
    network::{NetworkId, StatementId},
};
use thiserror::Error;

use super::{
    error::NetworkError,
    network::{Network, hex},
    port::{Loaded, load_from},
    report::RotatedNetwork,
    store::{Change, FILE, KeptRotation, Store, StoreError as NetworksError, line_to},
};
use crate::{
    clock, dht,
    store::{KeystoreFile, StoreError},
};

/// Why the key was not rotated; the node has the one it had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotationError {
    /// There is no keystore to put another key into.
    #[error("this daemon keeps its key in memory only (`--ephemeral`): a new start is a new identity anyway")]
    NotKept,
    /// The keystore is not what this node was started with.
    #[error("the keystore holds another key than this node runs with: it was changed since the start")]
    OtherKey,
    /// The key file could not be read or written.
    #[error(transparent)]
    Keystore(#[from] StoreError),
    /// A network did not allow it.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The networks could not be written down.
    #[error("the networks cannot be stored: {0}")]
    Store(String),
    /// What is kept of the networks is of another version than this one.
    #[error("{0}")]
    Unread(String),
    /// One is under way.
    #[error("a rotation is under way already")]
    Busy,
    /// The node ended, or its store failed, before it was known whether the rotation is decided; the next start knows.
    #[error("it is not known whether the rotation was written down: both keys are kept, and the next start decides")]
    Undecided,
    /// The cryptographic library refused.
    #[error("it cannot be signed: {0}")]
    Signing(String),
    /// The key was rotated, but the node did not start again.
    #[error("the key is rotated, but the node did not start again with it: {0}")]
    Restart(String),
}

/// How an interrupted rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The new key is the keystore now.
    Finished,
    /// The new key was never in force and is gone.
    Undone,
}

/// Ends a rotation that was interrupted by a crash, before the keystore is opened; `None`: there was none.
///
/// # Errors
/// The files of the state directory cannot be read or written; nothing was decided.
pub fn finish_rotation(state_dir: &Path, keystore: &KeystoreFile) -> Result<Option<Interrupted>, RotationError> {
    let Some(next) = keystore.next_digest()? else { return Ok(None) };
    let decided = decided(state_dir, &next).map_err(unread)?;
    if let Some(rotation) = decided {
        keystore.adopt_next()?;
        dht::hand_over(state_dir, &PeerId::from_bytes(rotation.old), &PeerId::from_bytes(rotation.new));
        return Ok(Some(Interrupted::Finished));
    }
    keystore.drop_next()?;
    Ok(Some(Interrupted::Undone))
}

/// As [`decide`], for a node that does not run: members hear of it when it does.
///
/// # Errors
/// [`decide`]; [`RotationError::Unread`] where a network cannot be read, which would keep the key before.
pub(crate) async fn decide_at_rest(
    state_dir: &Path,
    (identity, next): (&Identity, &Identity),
    file: [u8; 32],
) -> Result<Vec<RotatedNetwork>, RotationError> {
    let store = Store::open_as_it_is(state_dir).map_err(unread)?;
    let Loaded { store, networks, unread, .. } = load_from(store, identity.peer_id()).map_err(unread)?;
    if let Some(why) = unread.into_values().next() {
        return Err(RotationError::Unread(why));
    }
    let mut networks = networks.into_iter().map(|network| (network.id, network)).collect();
    let decided = decide(&mut networks, &store, (identity, next), (file, clock::unix_millis())).await?;
    Ok(decided.told.into_iter().map(|(_, report)| report).collect())
}

fn unread(error: NetworksError) -> RotationError {
    let is_of_another_version = matches!(error, NetworksError::Newer(_) | NetworksError::Unreadable(_));
    if is_of_another_version {
        RotationError::Unread(error.to_string())
    } else {
        RotationError::Store(error.to_string())
    }
}

/// What was decided.
pub(super) struct Decided {
    pub(super) told: Vec<(NetworkId, RotatedNetwork)>,
    pub(super) fact: Fact,
}

/// Signs every membership over to the next identity and writes that down, all or nothing; `file`: SHA-256 of its key file.
///
/// # Errors
/// Why it is not decided: networks and what they would tell are as before. [`RotationError::Undecided`]: it may be.
pub(super) async fn decide(
    networks: &mut BTreeMap<NetworkId, Network>,
    store: &Store,
    (identity, next): (&Identity, &Identity),
    (file, now_ms): ([u8; 32], u64),
) -> Result<Decided, RotationError> {
    let mut signed = Vec::new();
    let decided = match sign(networks, (identity, next), now_ms, &mut signed) {
        Ok(fact) => write(networks, store, (identity, next), (file, now_ms), &fact).await.map(|()| fact),
        Err(error) => Err(error),
    };
    match decided {
        Ok(fact) => {
            Ok(Decided { told: signed.into_iter().map(|(network, _, report)| (network, report)).collect(), fact })
        }
        Err(error) => {
            for (network, rotation, _) in &signed {
                if let Some(network) = networks.get_mut(network) {
                    network.take_back(rotation);
                }
            }
            Err(error)
        }
    }
}

fn sign(
    networks: &mut BTreeMap<NetworkId, Network>,
    (identity, next): (&Identity, &Identity),
    now_ms: u64,
    signed: &mut Vec<(NetworkId, StatementId, RotatedNetwork)>,
) -> Result<Fact, RotationError> {
    for network in networks.values_mut().filter(|network| network.rotates()) {
        let (rotation, report) = network.rotate(now_ms, identity, next)?;
        signed.push((network.id, rotation, report));
    }
    let fact = Rotation::sign(identity, next, 1, now_ms).map(Fact::Rotation);
    fact.map_err(|error| RotationError::Signing(error.to_string()))
}

/// One transaction: the statements of all networks and what says that the next key file counts.
async fn write(
    networks: &mut BTreeMap<NetworkId, Network>,
    store: &Store,
    (identity, next): (&Identity, &Identity),
    (file, at_ms): ([u8; 32], u64),
    fact: &Fact,
) -> Result<(), RotationError> {
    let (old, new) = (*identity.peer_id().as_bytes(), *next.peer_id().as_bytes());
    let kept = KeptRotation { old, new, file, at_ms, fact: hex(&fact.encode()) };
    let mut changes = vec![Change::Rotation(Box::new(kept))];
    changes.extend(networks.values().flat_map(|network| network.changes.iter().cloned()));
    if let Err(failed) = store.write(changes).await {
        let settled = store.settled_rotations().await.and_then(|found| found.naming(&file));
        let Ok(found) = settled else {
            tracing::error!(%failed, "whether the rotation is written down is not known");
            return Err(RotationError::Undecided);
        };
        if found.is_none() {
            return Err(RotationError::Store(failed.to_string()));
        }
    }
    networks.values_mut().for_each(|network| network.changes.clear());
    Ok(())
}

/// The facts of the rotations that led to the key `own`, oldest first. An older key that was brought back has none.
pub(super) fn facts_of(kept: &[KeptRotation], own: &PeerId) -> Vec<Fact> {
    let line = line_to(own.as_bytes(), kept).into_iter().rev();
    let fact = |rotation: &KeptRotation| Fact::decode(&HEXLOWER.decode(rotation.fact.as_bytes()).ok()?).ok();
    line.filter_map(fact).collect()
}

/// The rotation to the key file of this digest.
fn decided(state_dir: &Path, next: &[u8; 32]) -> Result<Option<KeptRotation>, NetworksError> {
    if !state_dir.join(FILE).exists() {
        return Ok(None);
    }
    // A damaged one is left where it is: what it decided may be read from a copy, and nothing else says it.
    Store::open_as_it_is(state_dir)?.rotations()?.naming(next)
}

#[cfg(test)]
mod tests {
    use super::{
        super::store::{Head, WaitingJoin},
        *,
    };

    fn kept(old: &Identity, new: &Identity, at_ms: u64) -> Change {
        let fact = Rotation::sign(old, new, 1, at_ms).map(Fact::Rotation).unwrap();
        let (old, new) = (*old.peer_id().as_bytes(), *new.peer_id().as_bytes());
        Change::Rotation(Box::new(KeptRotation { old, new, file: [7; 32], at_ms, fact: hex(&fact.encode()) }))
    }

    fn whose(facts: &[Fact]) -> Vec<(PeerId, PeerId)> {
        let of = |fact: &Fact| {
            let Fact::Rotation(rotation) = fact else { panic!("{fact:?}") };
            (rotation.old, rotation.new)
        };
        facts.iter().map(of).collect()
    }

    #[tokio::test]
    async fn one_network_that_cannot_be_read_keeps_the_key_of_a_node_that_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let (now, next) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let head = |waiting| Head { name: "home".into(), enabled: true, seq: 0, waiting, since_ms: 1 };
        let (store, _) = Store::open(dir.path()).unwrap();
        // One that is only waited for says nothing, and has nothing to say.
        let waiting = WaitingJoin { code: "code".into(), name: "desk".into() };
        store.write(vec![Change::Head(NetworkId::from_bytes([1; 32]), head(Some(waiting)))]).await.unwrap();
        drop(store);
        let decided = decide_at_rest(dir.path(), (&now, &next), [7; 32]).await.unwrap();
        assert!(decided.is_empty(), "{decided:?}");
        let (store, _) = Store::open(dir.path()).unwrap();
        store.write(vec![Change::Head(NetworkId::from_bytes([2; 32]), head(None))]).await.unwrap();
        drop(store);
        let refused = decide_at_rest(dir.path(), (&now, &next), [8; 32]).await;
        let Err(RotationError::Unread(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("the network home cannot be read"), "{why}");
        assert_eq!(decided_for(dir.path(), [8; 32]), None);
    }

    fn decided_for(dir: &Path, file: [u8; 32]) -> Option<[u8; 32]> {
        Store::open(dir).unwrap().0.rotations().unwrap().kept.iter().map(|kept| kept.file).find(|kept| *kept == file)
    }

    #[tokio::test]
    async fn the_line_of_own_keys_holds_though_the_clock_was_set_back_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let keys: Vec<Identity> = (0..3).map(|_| Identity::generate().unwrap()).collect();
        for (pair, at_ms) in keys.windows(2).zip([2_000_000, 1_000_000]) {
            store.write(vec![kept(&pair[0], &pair[1], at_ms)]).await.unwrap();
        }
        let id = |n: usize| keys[n].peer_id();
        let kept = store.rotations().unwrap().kept;
        assert_eq!(whose(&facts_of(&kept, &id(2))), [(id(0), id(1)), (id(1), id(2))]);
        assert_eq!(whose(&facts_of(&kept, &id(1))), [(id(0), id(1))]);
        assert!(facts_of(&kept, &id(0)).is_empty());
    }

    #[tokio::test]
    async fn of_too_many_rotations_the_far_end_of_the_line_goes_whatever_the_clock_said() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let at = |n: u8| KeptRotation {
            old: [n; 32],
            new: [n + 1; 32],
            file: [7; 32],
            at_ms: 100 - u64::from(n),
            fact: String::new(),
        };
        // Of a key that was brought back from a backup and is not in use any more.
        let aside = KeptRotation { old: [90; 32], new: [91; 32], at_ms: 1000, ..at(0) };
        store.write(vec![Change::Rotation(Box::new(aside))]).await.unwrap();
        for n in 0..12 {
            store.write(vec![Change::Rotation(Box::new(at(n)))]).await.unwrap();
        }
        let left: Vec<u8> = store.rotations().unwrap().kept.iter().map(|rotation| rotation.old[0]).collect();
        assert_eq!(left, [4, 5, 6, 7, 8, 9, 10, 11]);
    }
}
