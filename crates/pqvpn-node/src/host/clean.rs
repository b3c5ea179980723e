// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes what a killed daemon left on this host, where none is started again that would.
//!
//! What a daemon that runs has set is not touched: of ours there is none, as the caller holds the lock of its state
//! directory, and another's is on an interface that lives.

use std::path::Path;

use super::{
    HostError, guard,
    journal::{self, Loaded},
    kernel::Kernel,
    recover, wall,
};
use crate::names;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// What was removed, one line each.
    pub removed: Vec<String>,
    /// What stays because it was to.
    pub kept: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// Removes what a killed daemon of `state_dir` left; `interface`: the name its device has by the configuration. With
/// `keep_closed` packets for members go on leading nowhere, as after a kill, until the next start.
///
/// # Errors
/// The kernel does not say what there is, or the journal is of a newer version.
pub async fn clean(state_dir: &Path, interface: &str, keep_closed: bool) -> Result<Cleaned, HostError> {
    let mut cleaned = Cleaned::default();
    // Before the journal of the host's own changes: it goes first when they were made.
    match names::recover(state_dir).await {
        Ok(what) => cleaned.removed.extend(what),
        Err(why) => cleaned.failed.push(format!("the host's resolver: {why}")),
    }
    let ours = match journal::load(state_dir).await? {
        Loaded::Journal(journal) if journal.is_of_here() => Some((journal.interface, journal.index)),
        Loaded::Journal(_) | Loaded::None | Loaded::Unreadable(_) => None,
    };
    let recovered = recover(state_dir).await;
    match recovered {
        Ok(recovered) => {
            cleaned.removed.extend(recovered.undone);
            cleaned.failed.extend(recovered.unreadable.map(|why| format!("the journal of host changes: {why}")));
        }
        Err(error @ HostError::JournalVersion { .. }) => return Err(error),
        Err(error) => cleaned.failed.push(error.to_string()),
    }
    let kernel = Kernel::open()?;
    let name = ours.as_ref().map_or(interface, |(name, _)| name);
    // The device of the journal is ours and has no daemon; another one of that name may have one.
    if ours.is_some() || kernel.index_of(name).await?.is_none() {
        match wall::sweep(name).await {
            Ok(tables) => cleaned.removed.extend(tables),
            Err(error) => cleaned.failed.push(format!("nftables of {name}: {error}")),
        }
    }
    let closed = closed(&kernel).await?;
    if keep_closed {
        cleaned.kept.extend((closed > 0).then(|| format!("{closed} routes that keep members' packets from leaving")));
        return Ok(cleaned);
    }
    if let Some((_, index)) = ours {
        guard::clear(&kernel, index).await?;
    }
    guard::sweep(&kernel).await?;
    let gone = closed.saturating_sub(self::closed(&kernel).await?);
    cleaned.removed.extend((gone > 0).then(|| format!("{gone} routes to members' addresses and the rule before them")));
    Ok(cleaned)
}

/// Routes to members' addresses in the tables of guards, those of daemons that run as well.
async fn closed(kernel: &Kernel) -> Result<usize, HostError> {
    Ok(kernel.routes().await?.iter().filter(|route| route.ours && guard::is_guard(route.table)).count())
}
