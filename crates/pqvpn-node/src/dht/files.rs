// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the DHT keeps on disk: its admission, nodes to start from, own values and the numbers used up.
//!
//! Three small JSON files in the state directory, each replaced in one step; `docs/protocol.md`, "DHT state file". A
//! file that cannot be used is moved aside and missed by nobody: everything in it can be found again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, NetworkId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::{StoreError, read_private, write_atomic};

/// Format of all three files.
const VERSION: u32 = 1;
/// Largest file read, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Mode of the files: who the neighbours are is nobody else's business.
const MODE: u32 = 0o600;
/// Contacts kept for the next start.
pub(super) const MAX_SAMPLE: usize = 64;

const ADMISSION: &str = "dht-admission.json";
const TABLE: &str = "dht-table.json";
const RECORDS: &str = "dht-records.json";

/// The files of one node in one DHT.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    peer: String,
    network: String,
}

/// What every file begins with: whose it is.
#[derive(Debug, Serialize, Deserialize)]
struct File<T> {
    version: u32,
    peer: String,
    network: String,
    content: T,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionLine {
    week: u32,
    nonce: u64,
    out: String,
}

/// A node to start from, as the table file keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<SocketAddr>,
    /// When a handshake last proved it, ms since 1970.
    pub(super) verified_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RememberedLine {
    peer: String,
    addresses: Vec<SocketAddr>,
    verified_ms: Option<u64>,
}

/// Own records, as far as they must survive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    /// The highest seq that was ever signed: none up to it may be used again.
    pub(super) seq: u64,
    /// Values that are kept published.
    pub(super) values: Vec<OwnValue>,
}

/// One value of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnValue {
    pub(super) name: String,
    /// Its bytes in hex.
    pub(super) value: String,
}

/// A file that was moved aside, for people.
pub(super) type Aside = String;

impl AdmissionLine {
    fn read(self) -> Option<Admission> {
        Some(Admission { week: self.week, nonce: self.nonce, out: fixed(&self.out)? })
    }
}

impl RememberedLine {
    fn read_all(lines: Vec<Self>) -> Option<Vec<Remembered>> {
        let contact = |line: Self| {
            let peer = PeerId::from_bytes(fixed(&line.peer)?);
            Some(Remembered { peer, addresses: line.addresses, verified_ms: line.verified_ms })
        };
        lines.into_iter().take(MAX_SAMPLE).map(contact).collect()
    }
}

/// Reads any bytes as each of the files.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let files = Files::new(Path::new("/"), &PeerId::from_bytes([1; 32]), &NetworkId::OPEN);
    let _admission = files.parse(data, AdmissionLine::read);
    if let Ok(table) = files.parse(data, RememberedLine::read_all) {
        assert!(table.len() <= MAX_SAMPLE);
    }
    let _published = files.parse::<Published, _>(data, Some);
}

impl Files {
    pub(super) fn new(dir: &Path, peer: &PeerId, network: &NetworkId) -> Self {
        Self { dir: dir.to_owned(), peer: peer.to_string(), network: HEXLOWER.encode(network.as_bytes()) }
    }

    pub(super) fn admission(&self, aside: &mut Vec<Aside>) -> Option<Admission> {
        self.load(ADMISSION, aside, AdmissionLine::read)
    }

    pub(super) fn save_admission(&self, admission: &Admission) -> Result<(), StoreError> {
        let out = HEXLOWER.encode(&admission.out);
        self.save(ADMISSION, AdmissionLine { week: admission.week, nonce: admission.nonce, out })
    }

    pub(super) fn table(&self, aside: &mut Vec<Aside>) -> Vec<Remembered> {
        self.load(TABLE, aside, RememberedLine::read_all).unwrap_or_default()
    }

    pub(super) fn save_table(&self, contacts: Vec<Remembered>) -> Result<(), StoreError> {
        let line = |contact: Remembered| RememberedLine {
            peer: contact.peer.to_string(),
            addresses: contact.addresses,
            verified_ms: contact.verified_ms,
        };
        self.save(TABLE, contacts.into_iter().take(MAX_SAMPLE).map(line).collect::<Vec<_>>())
    }

    pub(super) fn published(&self, aside: &mut Vec<Aside>) -> Published {
        self.load(RECORDS, aside, Some).unwrap_or_default()
    }

    pub(super) fn save_published(&self, published: &Published) -> Result<(), StoreError> {
        self.save(RECORDS, published)
    }

    fn save<T: Serialize>(&self, name: &str, content: T) -> Result<(), StoreError> {
        let file = File { version: VERSION, peer: self.peer.clone(), network: self.network.clone(), content };
        let bytes = serde_json::to_vec_pretty(&file).expect("plain values have a JSON form");
        write_atomic(&self.dir.join(name), &bytes, MODE)
    }

    fn load<T: DeserializeOwned, U>(
        &self,
        name: &str,
        aside: &mut Vec<Aside>,
        read: impl FnOnce(T) -> Option<U>,
    ) -> Option<U> {
        let path = self.dir.join(name);
        let why = match read_private(&path, MAX_FILE) {
            Err(StoreError::Missing(_)) => return None,
            Err(error) => error.to_string(),
            Ok(bytes) => match self.parse(&bytes, read) {
                Ok(content) => return Some(content),
                Err(why) => why,
            },
        };
        let bad = path.with_extension("json.bad");
        let moved = match fs::rename(&path, &bad) {
            Ok(()) => format!("moved to {}", bad.display()),
            Err(error) => format!("cannot be moved aside: {error}"),
        };
        tracing::warn!(file = %path.display(), %why, "a state file of the DHT is not used; {moved}");
        aside.push(format!("{} is not used: {why}; {moved}", path.display()));
        None
    }

    /// What a file says, or why it is not used.
    fn parse<T: DeserializeOwned, U>(&self, bytes: &[u8], read: impl FnOnce(T) -> Option<U>) -> Result<U, String> {
        match serde_json::from_slice::<File<T>>(bytes) {
            Err(error) => Err(error.to_string()),
            Ok(file) if file.version != VERSION => Err(format!("its version is {}", file.version)),
            Ok(file) if file.peer != self.peer => Err("it belongs to another identity".to_owned()),
            Ok(file) if file.network != self.network => Err("it belongs to another DHT".to_owned()),
            Ok(file) => read(file.content).ok_or_else(|| "its content is not legal".to_owned()),
        }
    }
}

/// Gives what an identity kept to the one that follows it: nodes to start from, values, and the numbers used up. Its place
/// was proven for the key before and is looked for anew. What cannot be handed over is found again.
pub(crate) fn hand_over(dir: &Path, old: &PeerId, new: &PeerId) {
    let (old, new) = (old.to_string(), new.to_string());
    for name in [TABLE, RECORDS, ADMISSION] {
        let path = dir.join(name);
        let Ok(bytes) = read_private(&path, MAX_FILE) else { continue };
        let Ok(mut file) = serde_json::from_slice::<File<serde_json::Value>>(&bytes) else { continue };
        if file.peer != old {
            continue;
        }
        file.peer.clone_from(&new);
        let done = match serde_json::to_vec_pretty(&file) {
            Ok(bytes) if name != ADMISSION => write_atomic(&path, &bytes, MODE).map_err(|error| error.to_string()),
            _ => fs::remove_file(&path).map_err(|error| error.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!(%error, file = name, "the DHT begins anew under another key");
        }
    }
}

fn fixed<const N: usize>(hex: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: PeerId = PeerId::from_bytes([1; 32]);

    fn files(dir: &Path) -> Files {
        Files::new(dir, &ME, &NetworkId::OPEN)
    }

    #[test]
    fn the_next_identity_has_what_the_one_before_kept_but_not_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (_, table, published) = fill(&files(dir.path()));
        let next = PeerId::from_bytes([3; 32]);
        hand_over(dir.path(), &next, &ME);
        assert!(files(dir.path()).admission(&mut Vec::new()).is_some(), "they are not that one's to give");
        hand_over(dir.path(), &ME, &next);
        let (files, mut aside) = (Files::new(dir.path(), &next, &NetworkId::OPEN), Vec::new());
        assert_eq!((files.table(&mut aside), files.published(&mut aside)), (table, published));
        assert_eq!((files.admission(&mut aside), aside), (None, Vec::new()));
    }

    fn fill(files: &Files) -> (Admission, Vec<Remembered>, Published) {
        let admission = Admission { week: 7, nonce: u64::MAX, out: [9; 32] };
        let addresses = vec!["192.0.2.1:5".parse().unwrap(), "[2001:db8::1]:5".parse().unwrap()];
        let table = vec![Remembered { peer: PeerId::from_bytes([2; 32]), addresses, verified_ms: Some(3) }];
        let values = vec![OwnValue { name: "n".to_owned(), value: "00ff".to_owned() }];
        let published = Published { seq: u64::MAX - 1, values };
        files.save_admission(&admission).unwrap();
        files.save_table(table.clone()).unwrap();
        files.save_published(&published).unwrap();
        (admission, table, published)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let mut aside = Vec::new();
        assert_eq!((files.admission(&mut aside), files.table(&mut aside).len()), (None, 0));
        let (admission, table, published) = fill(&files);
        assert_eq!(files.admission(&mut aside), Some(admission));
        assert_eq!(files.table(&mut aside), table);
        assert_eq!(files.published(&mut aside), published);
        assert_eq!(aside, Vec::<String>::new());
    }

    #[test]
    fn a_file_of_somebody_else_of_another_version_or_half_a_file_is_moved_aside_and_missed_by_nobody() {
        for spoil in [
            |text: String| text.replace(&ME.to_string(), &PeerId::from_bytes([3; 32]).to_string()),
            |text: String| text.replace("\"version\": 1", "\"version\": 2"),
            |text: String| text.replace("\"network\": \"7", "\"network\": \"8"),
            |text: String| text[..text.len() / 2].to_owned(),
            |_: String| String::new(),
            |text: String| text.replace("\"content\"", "\"extra\": 1, \"content\": 5, \"x\""),
            |_: String| "\u{0}".repeat(300_000),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let files = files(dir.path());
            fill(&files);
            for name in [ADMISSION, TABLE, RECORDS] {
                let path = dir.path().join(name);
                let spoiled = spoil(fs::read_to_string(&path).unwrap());
                fs::write(&path, &spoiled).unwrap();
            }
            let mut aside = Vec::new();
            assert_eq!(files.admission(&mut aside), None);
            assert_eq!(files.table(&mut aside), Vec::new());
            assert_eq!(files.published(&mut aside), Published::default());
            assert_eq!(aside.len(), 3, "{aside:?}");
            assert!(dir.path().join("dht-table.json.bad").exists() && !dir.path().join(TABLE).exists());
            fill(&files);
            assert!(files.admission(&mut Vec::new()).is_some(), "the next file is as good as new");
        }
    }
}
