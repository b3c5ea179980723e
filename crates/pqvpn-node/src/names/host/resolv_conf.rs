// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our line in /etc/resolv.conf, where a user asked for it.
//!
//! The server named there is a loopback address: while the node is down, a query to it is refused at once and the next
//! server is asked, where one to an overlay address would wait for seconds, or leave the host. The servers that were
//! there stay, after ours: we refuse everything but our zone, and then they are asked.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::DnsError;
use crate::store::write_atomic;

/// Where names are answered for resolv.conf; `p` and `q` in ASCII.
pub(in crate::names) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 112, 113, 53));
/// The line before ours.
const MARK: &str = "# pqvpn: the next line is there while the node is up";
/// The longest file changed, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Servers that libraries look at (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;

/// The file before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// The file itself, not a link to it.
    pub(super) path: PathBuf,
    /// What was there; absent: there was no file.
    #[serde(with = "hex")]
    before: Option<Vec<u8>>,
    #[serde(with = "hex")]
    after: Option<Vec<u8>>,
}

/// What would be changed.
pub(super) fn change(path: &Path) -> Result<Change, DnsError> {
    // Where a link leads nowhere the file is another program's, which will write it.
    let path = if is_link(path) { real(path)? } else { fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) };
    let before = read(&path)?;
    Ok(Change::of(path, before))
}

/// What would be changed of a file that is in use; none while there is none, or nothing in it: its owner is just about to
/// write it.
pub(super) fn change_of_file_in_use(path: &Path) -> Result<Option<Change>, DnsError> {
    let Ok(path) = fs::canonicalize(path) else { return Ok(None) };
    let before = read(&path)?.filter(|bytes| !bytes.is_empty());
    Ok(before.map(|bytes| Change::of(path, Some(bytes))))
}

impl Change {
    fn of(path: PathBuf, before: Option<Vec<u8>>) -> Self {
        // A line of ours whose journal was lost goes first.
        let before = before.map(|bytes| without_ours(&bytes).unwrap_or(bytes));
        let ours = format!("{MARK}\nnameserver {SERVER}\n");
        let after = Some([ours.as_bytes(), before.as_deref().unwrap_or_default()].concat());
        Self { path, before, after }
    }

    pub(super) fn perform(&self) -> Result<(), DnsError> {
        write(&self.path, self.after.as_deref().unwrap_or_default())
    }

    /// Whether nobody has changed the file since.
    pub(super) fn is_in_force(&self) -> Result<bool, DnsError> {
        Ok(read(&self.path)? == self.after)
    }

    pub(super) fn is_of_the_same_file(&self, other: &Self) -> bool {
        self.path == other.path
    }

    /// Puts back what was there. If somebody has changed the file since, only our line is taken out of it.
    pub(super) fn revert(&self) -> Result<(), DnsError> {
        let Some(now) = read(&self.path)? else { return Ok(()) };
        // A link that stands there now is of whoever keeps the file it leads to.
        if Some(&now) == self.after.as_ref() && !is_link(&self.path) {
            return match &self.before {
                Some(before) => write(&self.path, before),
                None => fs::remove_file(&self.path).map_err(failed(&self.path)),
            };
        }
        without_ours(&now).map_or(Ok(()), |rest| write(&self.path, &rest))
    }

    /// What keeps the names from being found in spite of our line.
    pub(super) fn doubt(&self) -> Option<String> {
        let before = String::from_utf8_lossy(self.before.as_deref().unwrap_or_default());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = before.lines().map(words).collect();
        let is = |line: &[String], key: &str| line.first().is_some_and(|word| word == key);
        if lines.iter().any(|line| is(line, "options") && line.iter().any(|word| word == "rotate")) {
            return Some(format!("{}: \"options rotate\" asks other servers for our names too", self.path.display()));
        }
        let servers = lines.iter().filter(|line| is(line, "nameserver")).count();
        (servers >= MAX_SERVERS).then(|| {
            format!(
                "{}: with our line there are more than {MAX_SERVERS} servers, the last is not asked",
                self.path.display()
            )
        })
    }
}

/// The file without our line and the one before it; none if they are not there.
fn without_ours(bytes: &[u8]) -> Option<Vec<u8>> {
    let ours = format!("nameserver {SERVER}");
    let mut found = false;
    let mut kept = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        if text == MARK.as_bytes() || text == ours.as_bytes() {
            found = true;
        } else {
            kept.extend_from_slice(line);
        }
    }
    found.then_some(kept)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, DnsError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    if bytes.len() as u64 > MAX_BYTES { Err(DnsError::NotResolvConf(path.to_owned())) } else { Ok(Some(bytes)) }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

fn real(path: &Path) -> Result<PathBuf, DnsError> {
    fs::canonicalize(path).map_err(failed(path))
}

/// Replaces the content: in one step, or in place where the file is mounted over and cannot be replaced. Never a link: the
/// file it leads to would not be in use any more.
fn write(path: &Path, bytes: &[u8]) -> Result<(), DnsError> {
    let real = if is_link(path) { real(path)? } else { path.to_owned() };
    let path = real.as_path();
    let mode = fs::metadata(path).map_or(0o644, |meta| meta.mode() & 0o7777);
    if write_atomic(path, bytes, mode).is_ok() {
        // Whatever the mask of this process: everybody reads this file.
        return fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(path));
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).open(path);
    opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DnsError {
    let path = path.to_owned();
    move |source| DnsError::File { path, source }
}

/// Bytes in JSON, whatever they are.
mod hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "serde passes the field like this")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_some(&HEXLOWER.encode(bytes)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)).transpose()
    }
}
