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

use std::path::Path;

use data_encoding::HEXLOWER;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::Fact;
use thiserror::Error;

use super::{
    error::NetworkError,
    store::{FILE, KeptRotation, Store, StoreError as NetworksError},
};
use crate::{
    dht,
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
    /// One is under way.
    #[error("a rotation is under way already")]
    Busy,
    /// The node ended before it said whether the rotation is decided; the next start knows.
    #[error("the node ended meanwhile; its next start ends the rotation")]
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
    let decided = decided(state_dir, &next).map_err(|error| RotationError::Store(error.to_string()))?;
    if let Some(rotation) = decided {
        keystore.adopt_next()?;
        dht::hand_over(state_dir, &PeerId::from_bytes(rotation.old), &PeerId::from_bytes(rotation.new));
        return Ok(Some(Interrupted::Finished));
    }
    keystore.drop_next()?;
    Ok(Some(Interrupted::Undone))
}

/// The facts of the rotations that led to the key `own`, oldest first. An older key that was brought back has none.
pub(super) fn facts_of(store: &Store, own: &PeerId) -> Result<Vec<Fact>, NetworksError> {
    let (mut facts, mut at) = (Vec::new(), *own.as_bytes());
    for rotation in store.rotations()?.into_iter().rev() {
        if rotation.new == at {
            at = rotation.old;
            let bytes = HEXLOWER.decode(rotation.fact.as_bytes()).ok();
            facts.extend(bytes.and_then(|bytes| Fact::decode(&bytes).ok()));
        }
    }
    facts.reverse();
    Ok(facts)
}

/// The rotation to the key file of this digest.
fn decided(state_dir: &Path, next: &[u8; 32]) -> Result<Option<KeptRotation>, NetworksError> {
    if !state_dir.join(FILE).exists() {
        return Ok(None);
    }
    let (store, _) = Store::open(state_dir)?;
    Ok(store.rotations()?.into_iter().find(|rotation| rotation.file == *next))
}
