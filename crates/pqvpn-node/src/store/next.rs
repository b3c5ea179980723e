// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys beside the keystore: the next one while the key is rotated, the one before for some days after.
//!
//! `keystore` is there at every moment and is the whole old key or the whole new one. What decides whether a next key that
//! is found at a start becomes the keystore is written elsewhere (`membership/rotation.rs`): here are only the files.

use std::{fs, io, path::Path, path::PathBuf, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use pqvpn_crypto::{
    identity::IdentitySeed,
    keystore::{CreatedAt, MAX_FILE_LEN, Passphrase},
};

use super::{
    KeystoreFile, StoreError,
    file::{FILE_MODE, ensure_private_dir, io_error, read_private, sync_directory_of, write_atomic},
};
use crate::clock;

/// Name of the next key inside the state directory.
pub const NEXT_FILE: &str = "keystore.next";
/// Name of the key before.
pub const OLD_FILE: &str = "keystore.old";
/// How long the key before is kept (security.md 8).
pub const OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);

impl KeystoreFile {
    /// Writes a key beside the keystore, in place of one that is there, and gives the SHA-256 of its file.
    ///
    /// # Errors
    /// The file cannot be written; the keystore is untouched.
    pub fn prepare_next(&self, seed: &IdentitySeed, passphrase: Option<&Passphrase>) -> Result<[u8; 32], StoreError> {
        ensure_private_dir(&self.directory)?;
        let path = self.next();
        let bytes = self.seal(seed, CreatedAt(clock::unix_seconds()), passphrase, &path)?;
        write_atomic(&path, &bytes, FILE_MODE)?;
        Ok(sha256(&bytes))
    }

    /// The SHA-256 of the next key's file, where there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is open to others.
    pub fn next_digest(&self) -> Result<Option<[u8; 32]>, StoreError> {
        match read_private(&self.next(), MAX_FILE_LEN as u64) {
            Ok(bytes) => Ok(Some(sha256(&bytes))),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the next key the keystore and keeps the one before as [`OLD_FILE`]. Done again after a crash, it ends the same.
    ///
    /// # Errors
    /// A file cannot be written; the keystore is the whole old one or the whole new one.
    pub fn adopt_next(&self) -> Result<(), StoreError> {
        let now = read_private(&self.path, MAX_FILE_LEN as u64)?;
        write_atomic(&self.old(), &now, FILE_MODE)?;
        fs::rename(self.next(), &self.path).map_err(io_error("replace", &self.path))?;
        sync_directory_of(&self.path)
    }

    /// Removes the next key, if there is one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn drop_next(&self) -> Result<(), StoreError> {
        remove(&self.next())
    }

    /// Removes the key before once it has been kept for [`OVERLAP`]; gives how long it still has, if it is there.
    ///
    /// # Errors
    /// The file cannot be looked at or removed.
    pub fn expire_old(&self) -> Result<Option<Duration>, StoreError> {
        let path = self.old();
        let written = match fs::symlink_metadata(&path).and_then(|meta| meta.modified()) {
            Ok(written) => clock::age_of(written),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("look at", &path)(error)),
        };
        match OVERLAP.checked_sub(written) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => remove(&path).map(|()| None),
        }
    }

    /// Refuses what must not happen while it is not decided which key the keystore holds next.
    ///
    /// # Errors
    /// [`StoreError::Rotating`].
    pub fn refuse_while_rotating(&self) -> Result<(), StoreError> {
        if self.next_digest()?.is_some() { Err(StoreError::Rotating(self.next())) } else { Ok(()) }
    }

    fn next(&self) -> PathBuf {
        self.directory.join(NEXT_FILE)
    }

    fn old(&self) -> PathBuf {
        self.directory.join(OLD_FILE)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pqvpn_crypto::keystore::KdfParams;

    use super::*;

    /// As cheap as Argon2id gets: these tests are about files.
    const CHEAP: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };

    fn kept(passphrase: Option<&Passphrase>) -> (tempfile::TempDir, KeystoreFile, [IdentitySeed; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let keystore = KeystoreFile::new(&dir.path().join("state"), CHEAP);
        let seeds = [7, 8].map(|byte| IdentitySeed::from_bytes(&[byte; 64]));
        keystore.create(&seeds[0], passphrase).unwrap();
        (dir, keystore, seeds)
    }

    fn holds(keystore: &KeystoreFile, seed: &IdentitySeed, passphrase: Option<&Passphrase>) -> bool {
        keystore.load(passphrase).unwrap().expose() == seed.expose()
    }

    #[test]
    fn the_next_key_becomes_the_keystore_under_the_same_passphrase_and_the_one_before_is_kept() {
        let phrase = Passphrase::new("a");
        let (dir, keystore, [old, new]) = kept(Some(&phrase));
        let digest = keystore.prepare_next(&new, Some(&phrase)).unwrap();
        assert_eq!(keystore.next_digest().unwrap(), Some(digest));
        assert!(holds(&keystore, &old, Some(&phrase)), "nothing is in force yet");
        keystore.adopt_next().unwrap();
        assert!(holds(&keystore, &new, Some(&phrase)) && keystore.load(None).is_err());
        assert_eq!(keystore.next_digest().unwrap(), None);
        let before = dir.path().join("state").join(OLD_FILE);
        fs::copy(before, dir.path().join("state/keystore")).unwrap();
        assert!(holds(&keystore, &old, Some(&phrase)));
    }

    #[test]
    fn a_crash_between_the_two_files_is_repeated_to_the_same_end() {
        let (_dir, keystore, [old, new]) = kept(None);
        keystore.prepare_next(&new, None).unwrap();
        let now = read_private(&keystore.path, 4096).unwrap();
        write_atomic(&keystore.old(), &now, FILE_MODE).unwrap();
        assert!(holds(&keystore, &old, None), "the keystore is never missing");
        keystore.adopt_next().unwrap();
        assert!(holds(&keystore, &new, None));
    }

    #[test]
    fn a_next_key_can_be_replaced_and_dropped_and_a_passphrase_waits_for_it() {
        let (_dir, keystore, [old, new]) = kept(None);
        let first = keystore.prepare_next(&old, None).unwrap();
        let second = keystore.prepare_next(&new, None).unwrap();
        assert_ne!(first, second);
        let phrase = Passphrase::new("a");
        assert!(matches!(keystore.change_passphrase(None, Some(&phrase)), Err(StoreError::Rotating(_))));
        keystore.drop_next().unwrap();
        keystore.drop_next().unwrap();
        keystore.change_passphrase(None, Some(&phrase)).unwrap();
        assert!(holds(&keystore, &old, Some(&phrase)));
    }

    #[test]
    fn a_key_brought_back_is_not_followed_by_the_next_of_another() {
        let (dir, keystore, [old, new]) = kept(None);
        let (copy, phrase) = (dir.path().join("copy"), Passphrase::new("b"));
        keystore.backup(None, &copy, &phrase).unwrap();
        keystore.prepare_next(&new, None).unwrap();
        keystore.restore(&copy, Some(&phrase), None, true).unwrap();
        assert!(keystore.next_digest().unwrap().is_none() && holds(&keystore, &old, None));
    }

    #[test]
    fn a_key_that_cannot_be_brought_back_leaves_the_next_one_where_it_is() {
        let (dir, keystore, [_, new]) = kept(None);
        let (copy, phrase) = (dir.path().join("copy"), Passphrase::new("b"));
        keystore.backup(None, &copy, &phrase).unwrap();
        let next = keystore.prepare_next(&new, None).unwrap();
        // Nothing can be renamed onto a directory.
        fs::remove_file(&keystore.path).unwrap();
        fs::create_dir(&keystore.path).unwrap();
        assert!(keystore.restore(&copy, Some(&phrase), None, true).is_err());
        assert_eq!(keystore.next_digest().unwrap(), Some(next));
    }

    #[test]
    fn no_backup_is_made_of_a_key_that_may_be_the_one_before() {
        let (dir, keystore, [_, new]) = kept(None);
        keystore.prepare_next(&new, None).unwrap();
        let copy = dir.path().join("copy");
        let refused = keystore.backup(None, &copy, &Passphrase::new("b"));
        assert!(matches!(refused, Err(StoreError::Rotating(_))) && !copy.exists());
    }

    #[test]
    fn the_key_before_goes_after_its_days_and_not_earlier() {
        let (_dir, keystore, [_, new]) = kept(None);
        assert_eq!(keystore.expire_old().unwrap(), None);
        keystore.prepare_next(&new, None).unwrap();
        keystore.adopt_next().unwrap();
        let left = keystore.expire_old().unwrap().unwrap();
        assert!(left <= OVERLAP && left > OVERLAP - Duration::from_secs(3600), "{left:?}");
        let file = fs::File::options().write(true).open(keystore.old()).unwrap();
        file.set_modified(SystemTime::now() - OVERLAP - Duration::from_secs(1)).unwrap();
        assert_eq!(keystore.expire_old().unwrap(), None);
        assert!(!keystore.old().exists());
    }
}
