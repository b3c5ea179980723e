// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's key: from the keystore, made when there is none.

use std::{fs, path::Path};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    keystore::{KdfParams, Passphrase},
};
use pqvpn_node::store::{KeystoreFile, StoreError};

use crate::{failure::Failure, passphrase};

/// The option that names a file with the passphrase of the keystore.
pub(crate) const PASSPHRASE_OPTION: &str = "--passphrase-file";
/// Machines with less memory than this (in KiB) get the small Argon2id costs.
const SMALL_MACHINE_KIB: u64 = 2 * 1024 * 1024;

/// The keystore of a state directory, with costs this machine can bear.
pub(crate) fn keystore(state_dir: &Path) -> KeystoreFile {
    KeystoreFile::new(state_dir, costs(&fs::read_to_string("/proc/meminfo").unwrap_or_default()))
}

/// Loads the identity; makes one when there is none. The second value says whether it is new.
pub(crate) fn load_or_create(
    keystore: &KeystoreFile,
    passphrase_file: Option<&Path>,
) -> Result<(Identity, bool), Failure> {
    if !keystore.exists()? {
        let seed = IdentitySeed::generate().map_err(StoreError::from)?;
        match keystore.create(&seed, passphrase::given(passphrase_file)?.as_ref()) {
            Ok(()) => return Ok((from_seed(&seed)?, true)),
            // Somebody was faster: then that is the identity.
            Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(Failure::from(error).while_doing("no identity was made")),
        }
    }
    Ok((load(keystore, passphrase_file)?, false))
}

/// Loads the identity that is there.
pub(crate) fn load(keystore: &KeystoreFile, passphrase_file: Option<&Path>) -> Result<Identity, Failure> {
    let passphrase = unlock(keystore, passphrase_file)?;
    let seed = keystore
        .load(passphrase.as_ref())
        .map_err(|error| Failure::from(error).while_doing("the key was not loaded"))?;
    from_seed(&seed)
}

/// The passphrase of the keystore, when it has one.
pub(crate) fn unlock(keystore: &KeystoreFile, passphrase_file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    let encrypted =
        keystore.is_encrypted().map_err(|error| Failure::from(error).while_doing("the key was not loaded"))?;
    if !encrypted {
        return Ok(None);
    }
    passphrase::existing(passphrase_file, (PASSPHRASE_OPTION, &keystore.path().display().to_string())).map(Some)
}

/// The keys of a seed.
pub(crate) fn from_seed(seed: &IdentitySeed) -> Result<Identity, Failure> {
    Ok(Identity::from_seed(seed).map_err(StoreError::from)?)
}

fn costs(meminfo: &str) -> KdfParams {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    if total.is_some_and(|kib| kib >= SMALL_MACHINE_KIB) { KdfParams::DESKTOP } else { KdfParams::SMALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_get_small_costs() {
        assert_eq!(costs("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), KdfParams::DESKTOP);
        assert_eq!(costs("MemTotal:         512000 kB\n"), KdfParams::SMALL);
        assert_eq!(costs(""), KdfParams::SMALL);
    }
}
