// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keystore as a file in the state directory; its format is `pqvpn_crypto::keystore`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pqvpn_crypto::{
    identity::IdentitySeed,
    keystore::{CreatedAt, KdfParams, Keystore, KeystoreError, MAX_FILE_LEN, Passphrase},
};
use zeroize::Zeroizing;

use super::{
    StoreError,
    file::{FILE_MODE, create_private, ensure_private_dir, io_error, read_private, write_atomic},
};
use crate::{clock, entropy};

/// Name of the keystore inside the state directory.
pub const KEYSTORE_FILE: &str = "keystore";

/// The keystore of one node.
#[derive(Debug, Clone)]
pub struct KeystoreFile {
    pub(super) directory: PathBuf,
    pub(super) path: PathBuf,
    costs: KdfParams,
}

impl KeystoreFile {
    /// The keystore in `state_dir`; `costs` holds for what this value writes encrypted. Touches no file.
    #[must_use]
    pub fn new(state_dir: &Path, costs: KdfParams) -> Self {
        Self { directory: state_dir.to_owned(), path: state_dir.join(KEYSTORE_FILE), costs }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything has that name, also a dangling link.
    ///
    /// # Errors
    /// The directory cannot be searched.
    pub fn exists(&self) -> Result<bool, StoreError> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("look at", &self.path)(error)),
        }
    }

    /// Whether reading the key takes a passphrase.
    ///
    /// # Errors
    /// The file is missing, open to others or damaged.
    pub fn is_encrypted(&self) -> Result<bool, StoreError> {
        let bytes = self.read()?;
        Keystore::is_encrypted(&bytes).map_err(in_file(&self.path))
    }

    /// Reads the key. A passphrase given for a file that has none is not used.
    ///
    /// # Errors
    /// The file is missing, open to others or damaged, or the passphrase is missing or wrong.
    pub fn load(&self, passphrase: Option<&Passphrase>) -> Result<IdentitySeed, StoreError> {
        Ok(self.open(passphrase)?.0)
    }

    /// Writes a new key, in a directory that is made when missing.
    ///
    /// # Errors
    /// There is a keystore already, or it cannot be written.
    pub fn create(&self, seed: &IdentitySeed, passphrase: Option<&Passphrase>) -> Result<(), StoreError> {
        ensure_private_dir(&self.directory)?;
        if self.exists()? {
            return Err(StoreError::Exists(self.path.clone()));
        }
        let bytes = self.seal(seed, CreatedAt(clock::unix_seconds()), passphrase, &self.path)?;
        create_private(&self.path, &bytes)
    }

    /// Writes the key again under another passphrase, or under none.
    ///
    /// # Errors
    /// As [`KeystoreFile::load`], or the file cannot be replaced; then the old one stands.
    pub fn change_passphrase(&self, old: Option<&Passphrase>, new: Option<&Passphrase>) -> Result<(), StoreError> {
        // The next key is kept under the passphrase of this one.
        self.refuse_while_rotating()?;
        let (seed, created) = self.open(old)?;
        let bytes = self.seal(&seed, created, new, &self.path)?;
        write_atomic(&self.path, &bytes, FILE_MODE)
    }

    /// Writes a copy that opens with `backup_passphrase`; `to` must not exist.
    ///
    /// # Errors
    /// As [`KeystoreFile::load`]; the passphrase is empty; `to` exists or cannot be written; a rotation was interrupted, so
    /// that the key kept here may not be the one in force.
    pub fn backup(
        &self,
        passphrase: Option<&Passphrase>,
        to: &Path,
        backup_passphrase: &Passphrase,
    ) -> Result<(), StoreError> {
        self.refuse_while_rotating()?;
        let (seed, created) = self.open(passphrase)?;
        let bytes = self.seal(&seed, created, Some(backup_passphrase), to)?;
        create_private(to, &bytes)
    }

    /// Brings a key back from a backup, under `new` or under no passphrase.
    ///
    /// # Errors
    /// The backup is missing, open to others or damaged; its passphrase is missing or wrong; or there is a keystore
    /// already and `replace` is false. Then the old one stands.
    pub fn restore(
        &self,
        from: &Path,
        backup_passphrase: Option<&Passphrase>,
        new: Option<&Passphrase>,
        replace: bool,
    ) -> Result<IdentitySeed, StoreError> {
        if !replace && self.exists()? {
            return Err(StoreError::Exists(self.path.clone()));
        }
        let bytes = read_private(from, MAX_FILE_LEN as u64)?;
        let (seed, created) = open_bytes(&bytes, backup_passphrase, from)?;
        ensure_private_dir(&self.directory)?;
        let bytes = self.seal(&seed, created, new, &self.path)?;
        if replace {
            write_atomic(&self.path, &bytes, FILE_MODE)?;
            // Whoever brings another key back wants that one, not the next of the one that was there. Until that is there
            // the next may be the only copy of the key in force.
            self.drop_next()?;
        } else {
            create_private(&self.path, &bytes)?;
        }
        Ok(seed)
    }

    /// Whether the file at `path`, a backup, takes a passphrase.
    ///
    /// # Errors
    /// The file is missing, open to others or damaged.
    pub fn is_backup_encrypted(path: &Path) -> Result<bool, StoreError> {
        let bytes = read_private(path, MAX_FILE_LEN as u64)?;
        Keystore::is_encrypted(&bytes).map_err(in_file(path))
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        read_private(&self.path, MAX_FILE_LEN as u64)
    }

    fn open(&self, passphrase: Option<&Passphrase>) -> Result<(IdentitySeed, CreatedAt), StoreError> {
        open_bytes(&self.read()?, passphrase, &self.path)
    }

    pub(super) fn seal(
        &self,
        seed: &IdentitySeed,
        created: CreatedAt,
        passphrase: Option<&Passphrase>,
        path: &Path,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (salt, nonce) = (entropy::bytes(), entropy::bytes());
        Keystore::seal(seed, &created, passphrase, self.costs, &salt, &nonce).map(Zeroizing::new).map_err(in_file(path))
    }
}

fn open_bytes(
    bytes: &[u8],
    passphrase: Option<&Passphrase>,
    path: &Path,
) -> Result<(IdentitySeed, CreatedAt), StoreError> {
    let encrypted = Keystore::is_encrypted(bytes).map_err(in_file(path))?;
    Keystore::open_with_date(bytes, passphrase.filter(|_| encrypted)).map_err(in_file(path))
}

fn in_file(path: &Path) -> impl FnOnce(KeystoreError) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Keystore { path, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    /// As cheap as Argon2id gets: these tests are about files.
    const CHEAP: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };

    fn fresh() -> (tempfile::TempDir, KeystoreFile, IdentitySeed) {
        let dir = tempfile::tempdir().unwrap();
        let keystore = KeystoreFile::new(&dir.path().join("state"), CHEAP);
        (dir, keystore, IdentitySeed::from_bytes(&[7; 64]))
    }

    fn phrase(text: &str) -> Passphrase {
        Passphrase::new(text)
    }

    #[test]
    fn a_created_key_loads_and_the_modes_are_private() {
        let (_dir, keystore, seed) = fresh();
        assert!(!keystore.exists().unwrap());
        assert!(matches!(keystore.load(None), Err(StoreError::Missing(_))));
        keystore.create(&seed, None).unwrap();
        assert_eq!(keystore.load(None).unwrap().expose(), seed.expose());
        assert!(!keystore.is_encrypted().unwrap());
        assert_eq!(fs::metadata(keystore.path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&keystore.directory).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_second_create_is_refused_and_harmless() {
        let (_dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        let other = IdentitySeed::from_bytes(&[8; 64]);
        assert!(matches!(keystore.create(&other, None), Err(StoreError::Exists(_))));
        assert_eq!(keystore.load(None).unwrap().expose(), seed.expose());
    }

    #[test]
    fn a_passphrase_is_needed_and_must_be_right() {
        let (_dir, keystore, seed) = fresh();
        keystore.create(&seed, Some(&phrase("correct"))).unwrap();
        assert!(keystore.is_encrypted().unwrap());
        let error = keystore.load(None).unwrap_err();
        assert!(error.needs_passphrase() && error.is_refusal());
        let error = keystore.load(Some(&phrase("wrong"))).unwrap_err();
        assert!(matches!(error, StoreError::Keystore { error: KeystoreError::WrongPassphrase, .. }));
        assert_eq!(keystore.load(Some(&phrase("correct"))).unwrap().expose(), seed.expose());
    }

    #[test]
    fn the_passphrase_changes_and_goes() {
        let (_dir, keystore, seed) = fresh();
        keystore.create(&seed, Some(&phrase("old"))).unwrap();
        keystore.change_passphrase(Some(&phrase("old")), Some(&phrase("new"))).unwrap();
        assert!(keystore.load(Some(&phrase("old"))).is_err());
        keystore.change_passphrase(Some(&phrase("new")), None).unwrap();
        assert_eq!(keystore.load(None).unwrap().expose(), seed.expose());
        assert_eq!(fs::metadata(keystore.path()).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_wrong_passphrase_changes_nothing() {
        let (_dir, keystore, seed) = fresh();
        keystore.create(&seed, Some(&phrase("old"))).unwrap();
        let before = fs::read(keystore.path()).unwrap();
        assert!(keystore.change_passphrase(Some(&phrase("wrong")), None).is_err());
        assert_eq!(fs::read(keystore.path()).unwrap(), before);
    }

    #[test]
    fn a_backup_restores_on_another_machine() {
        let (dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        let file = dir.path().join("backup");
        keystore.backup(None, &file, &phrase("b")).unwrap();
        assert!(KeystoreFile::is_backup_encrypted(&file).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(keystore.backup(None, &file, &phrase("b")), Err(StoreError::Exists(_))));

        let other = KeystoreFile::new(&dir.path().join("other"), CHEAP);
        assert!(other.restore(&file, Some(&phrase("wrong")), None, false).is_err());
        assert!(!other.exists().unwrap());
        other.restore(&file, Some(&phrase("b")), None, false).unwrap();
        assert_eq!(other.load(None).unwrap().expose(), seed.expose());
    }

    #[test]
    fn an_empty_passphrase_makes_no_backup() {
        let (dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        let file = dir.path().join("backup");
        assert!(keystore.backup(None, &file, &phrase("")).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn restoring_over_a_key_needs_to_be_told() {
        let (dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        let file = dir.path().join("backup");
        keystore.backup(None, &file, &phrase("b")).unwrap();
        let other = KeystoreFile::new(&dir.path().join("other"), CHEAP);
        other.create(&IdentitySeed::from_bytes(&[8; 64]), None).unwrap();
        assert!(matches!(other.restore(&file, Some(&phrase("b")), None, false), Err(StoreError::Exists(_))));
        assert_eq!(other.load(None).unwrap().expose(), &[8; 64]);
        other.restore(&file, Some(&phrase("b")), None, true).unwrap();
        assert_eq!(other.load(None).unwrap().expose(), seed.expose());
    }

    #[test]
    fn damage_is_told_apart() {
        let (_dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        let good = fs::read(keystore.path()).unwrap();
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        for (bytes, wanted) in [
            (&good[..good.len() - 1], None),
            (&flipped, Some(KeystoreError::Checksum)),
            (&[0; 64], Some(KeystoreError::Magic)),
        ] {
            write_atomic(keystore.path(), bytes, FILE_MODE).unwrap();
            let StoreError::Keystore { error, .. } = keystore.load(None).unwrap_err() else { panic!() };
            assert!(wanted.is_none_or(|wanted| wanted == error), "{error}");
        }
    }

    #[test]
    fn a_key_others_can_read_is_refused_everywhere() {
        let (dir, keystore, seed) = fresh();
        keystore.create(&seed, None).unwrap();
        fs::set_permissions(keystore.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = |error: StoreError| matches!(error, StoreError::TooOpen { mode: 0o640, .. });
        assert!(refused(keystore.load(None).unwrap_err()));
        assert!(refused(keystore.is_encrypted().unwrap_err()));
        assert!(refused(keystore.change_passphrase(None, None).unwrap_err()));
        assert!(refused(keystore.backup(None, &dir.path().join("b"), &phrase("b")).unwrap_err()));
    }

    #[test]
    fn a_key_is_not_made_in_a_directory_others_can_write_to() {
        let (_dir, keystore, seed) = fresh();
        fs::create_dir(&keystore.directory).unwrap();
        fs::set_permissions(&keystore.directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(keystore.create(&seed, None), Err(StoreError::TooOpen { mode: 0o777, .. })));
        assert!(!keystore.exists().unwrap());
    }
}
