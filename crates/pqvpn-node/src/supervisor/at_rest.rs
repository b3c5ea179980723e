// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key of a node that does not run is rotated: the same files in the same order, with nobody to tell yet.

use std::path::Path;

use pqvpn_crypto::{identity::Identity, keystore::Passphrase, peer_id::PeerId};
use tokio::task::spawn_blocking;

use super::{Prepared, prepare, settle};
use crate::{
    dht,
    handle::RotationReport,
    membership::{RotationError, decide_at_rest},
    store::{KeystoreFile, StoreError},
};

/// Gives a node that does not run another key, in all its networks at once; members hear of it from its next start on. No
/// address is known before.
///
/// `own`: whose key it is, so far as whoever asked for it knows. The caller holds the state directory, so that no node starts with it meanwhile, and has ended what a crash interrupted
/// ([`crate::membership::finish_rotation`]).
///
/// # Errors
/// [`RotationError`]: the key is the one it was; with [`RotationError::Undecided`] the next start knows.
pub async fn rotate_at_rest(
    state_dir: &Path,
    keystore: KeystoreFile,
    passphrase: Option<Passphrase>,
    own: PeerId,
) -> Result<RotationReport, RotationError> {
    let Prepared { now, seed, file } = prepare(keystore.clone(), passphrase, own).await?;
    let next = Identity::from_seed(&seed).map_err(StoreError::from)?;
    let networks = settle(keystore, decide_at_rest(state_dir, (&now, &next), file).await).await?;
    let (dir, old, new) = (state_dir.to_owned(), now.peer_id(), next.peer_id());
    let _left_as_it_is = spawn_blocking(move || dht::hand_over(&dir, &old, &new)).await;
    Ok(RotationReport { old, new, fingerprint: next.public().fingerprint(), addresses: Vec::new(), networks })
}
