// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rotations of this node's own key on disk: which key led to which, and which key file each of them names.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{StoreError, failed, items, other, set};

/// By the old key: how this node came to another one.
pub(super) const ROTATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rotations");
/// Rotations kept; of more, those go that are the farthest from the key of now.
const MAX_ROTATIONS: usize = 8;

/// A rotation of this node's key that every network of it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::membership) struct KeptRotation {
    /// The key before.
    pub(in crate::membership) old: [u8; 32],
    /// The key since.
    pub(in crate::membership) new: [u8; 32],
    /// SHA-256 of the key file that becomes the keystore.
    pub(in crate::membership) file: [u8; 32],
    pub(in crate::membership) at_ms: u64,
    /// The fact for the DHT, in hex.
    pub(in crate::membership) fact: String,
}

/// Those that led to the key `own`, the last first: from key to key, since clocks are set back.
pub(in crate::membership) fn line_to<'k>(own: &[u8; 32], kept: &'k [KeptRotation]) -> Vec<&'k KeptRotation> {
    let mut by_new: BTreeMap<&[u8; 32], &KeptRotation> =
        kept.iter().map(|rotation| (&rotation.new, rotation)).collect();
    std::iter::successors(by_new.remove(own), |last| by_new.remove(&last.old)).collect()
}

/// What is kept of rotations.
#[derive(Debug, Default)]
pub(in crate::membership) struct Rotations {
    /// Those that can be read, in no order that means anything ([`line_to`]).
    pub(in crate::membership) kept: Vec<KeptRotation>,
    /// Why another one cannot.
    pub(in crate::membership) unread: Option<String>,
}

impl Rotations {
    pub(super) fn read_from(database: &Database) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for (_, bytes) in items(&database.begin_read().map_err(failed)?, ROTATIONS)? {
            match serde_json::from_slice(&bytes) {
                Ok(rotation) => all.kept.push(rotation),
                Err(error) => all.unread = Some(format!("a rotation of this node's key cannot be read: {error}")),
            }
        }
        Ok(all)
    }

    /// The one to the key file of this digest.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`]: none that can be read is, and one that cannot may be. A decided key that is dropped for
    /// that is lost, and with it who this node is; one that is kept in vain costs a start.
    pub(in crate::membership) fn naming(self, file: &[u8; 32]) -> Result<Option<KeptRotation>, StoreError> {
        let found = self.kept.into_iter().find(|rotation| rotation.file == *file);
        match self.unread.filter(|_| found.is_none()) {
            Some(why) => Err(StoreError::Unreadable(why)),
            None => Ok(found),
        }
    }
}

pub(super) fn keep(table: &mut redb::Table<'_, &[u8], &[u8]>, rotation: &KeptRotation) -> Result<(), StoreError> {
    let mut kept: Vec<KeptRotation> = Vec::new();
    let mut stay: Vec<Vec<u8>> = Vec::new();
    for item in table.iter().map_err(failed)? {
        let (key, bytes) = item.map_err(failed)?;
        match serde_json::from_slice::<KeptRotation>(bytes.value()) {
            Ok(found) => kept.extend(Some(found).filter(|found| found.old != rotation.old)),
            // Nobody knows what it leads to.
            Err(_) => stay.push(key.value().to_vec()),
        }
    }
    let line: Vec<[u8; 32]> = line_to(&rotation.old, &kept).iter().map(|kept| kept.old).collect();
    // What led to a key that another was brought back for goes first.
    let aside = kept.iter().map(|kept| kept.old).filter(|old| !line.contains(old));
    stay.extend(line.iter().copied().chain(aside).take(MAX_ROTATIONS - 1).map(Vec::from));
    table.retain(|old, _| stay.iter().any(|stay| stay == old)).map_err(failed)?;
    let bytes = serde_json::to_vec(rotation).map_err(other)?;
    set(table, &rotation.old, Some(&bytes))
}
