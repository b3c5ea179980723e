// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap`: the nodes discovery starts from.

mod add;
mod export;
mod list;
mod remove;
mod sign;

use std::{
    fs::File,
    io::Read,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::block_on;
use crate::{cli::BootstrapVerb, context::Context, failure::Failure};

/// Largest file read in bytes: more than any list, or any 64 entries with their comments.
const MAX_FILE: u64 = 64 * 1024;

pub(crate) fn run(context: &Context, verb: &BootstrapVerb) -> Result<(), Failure> {
    match verb {
        BootstrapVerb::List => block_on(list::run(context)),
        BootstrapVerb::Add(args) => block_on(add::run(context, args)),
        BootstrapVerb::Remove(args) => block_on(remove::run(context, args)),
        BootstrapVerb::Export(args) => block_on(export::run(context, args)),
        BootstrapVerb::Sign(args) => sign::run(context, args),
    }
}

/// A whole file, bounded; `what` did not happen when it cannot be read.
fn read(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::file(what, path, &error);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        let why = format!("{} is larger than {MAX_FILE} bytes", path.display());
        return Err(Failure::usage("too-large", what, why, "a file holds at most 64 entries"));
    }
    Ok(bytes)
}

/// Nothing that is there is written over, unless it is meant.
fn refuse_existing(what: &str, path: &Path, force: bool) -> Result<(), Failure> {
    if force || path.symlink_metadata().is_err() {
        return Ok(());
    }
    let why = format!("{} exists already", path.display());
    Err(Failure::failed("exists", what, why, "name another file, or replace it with `--force`"))
}

/// The entries of a text file.
fn entries(what: &str, path: &Path, bytes: Vec<u8>) -> Result<Vec<pqvpn_node::bootstrap::BootstrapEntry>, Failure> {
    let wrong = |why: String| {
        let why = format!("{}: {why}", path.display());
        Failure::usage("entries", what, why, "one `pqvpn://<64 hex digits of the PeerID>@host:port` per line")
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong("this is not UTF-8 text".to_owned()))?;
    let entries = pqvpn_node::bootstrap::entries_from_text(&text).map_err(|error| wrong(error.to_string()))?;
    if entries.is_empty() { Err(wrong("there is no entry in it".to_owned())) } else { Ok(entries) }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
