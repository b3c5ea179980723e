// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the host comes to know our names, and how that is taken back.
//!
//! systemd-resolved is told per link: it asks us for our zone and for nothing else, and forgets it with the link. Where it
//! does not run, /etc/resolv.conf is changed only if the user said so. Either is in a journal before it is done.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::journal::fuzz as fuzz_journal;

mod journal;
mod resolv_conf;
mod resolved;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use thiserror::Error;

use self::journal::Change;
pub(super) use self::resolv_conf::SERVER as LOOPBACK_SERVER;
use super::DnsHost;
use crate::{config::DnsMode, store::StoreError};

/// Where things are on the host; a test has a host of its own.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The program that talks to systemd-resolved.
    pub(super) resolvectl: PathBuf,
    /// There while systemd-resolved runs.
    pub(super) resolved: PathBuf,
    pub(super) resolv_conf: PathBuf,
    /// Whether systemd-resolved, if it runs, has the links of this network namespace.
    pub(super) is_resolved_s_namespace: bool,
}

impl Places {
    pub(super) fn of_this_host() -> Self {
        Self {
            resolvectl: "resolvectl".into(),
            resolved: "/run/systemd/resolve/io.systemd.Resolve".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            is_resolved_s_namespace: is_resolved_s_namespace(),
        }
    }

    /// How the host will come to know the names.
    pub(super) fn way(&self, mode: DnsMode) -> Way {
        let resolved = self.is_resolved_s_namespace && self.resolved.exists();
        match mode {
            DnsMode::Off => Way::None,
            DnsMode::Auto | DnsMode::ResolvConf if resolved => Way::Resolved,
            DnsMode::Auto => Way::None,
            DnsMode::ResolvConf => Way::ResolvConf,
        }
    }
}

/// Whether systemd-resolved has the links of the network namespace this process was in when it first asked.
pub(super) fn is_resolved_s_namespace() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(resolved::is_in_our_namespace)
}

/// How a host comes to know names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    None,
    Resolved,
    ResolvConf,
}

/// What the host shall know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) interface: String,
    pub(super) servers: Vec<IpAddr>,
    pub(super) zones: Vec<String>,
}

/// Why the host does not know the names, or could not be restored.
#[derive(Debug, Error)]
pub(crate) enum DnsError {
    /// resolvectl could not be run.
    #[error("{program} cannot be run: {source}")]
    Run {
        /// What was run.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// resolvectl failed.
    #[error("resolvectl {what}: {why}")]
    Resolvectl {
        /// Its arguments.
        what: String,
        /// Its own words.
        why: String,
    },
    /// The journal of DNS changes, or the file to be changed, cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// /etc/resolv.conf is no file of its kind.
    #[error("{0} is too long to be a list of name servers; it is left alone")]
    NotResolvConf(PathBuf),
    /// The journal is of a later version.
    #[error("{0} was written by a later version; it is left alone")]
    LaterJournal(PathBuf),
    #[cfg(test)]
    #[error("stopped by the test")]
    Injected,
}

impl DnsError {
    /// Whether a file may not be written by this process, now and later.
    fn is_refused(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::File { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }
}

/// A change in force. Dropping it undoes nothing; see [`Applied::undo`] and [`recover`].
#[derive(Debug)]
#[must_use = "the change stays until it is undone"]
pub(super) struct Applied {
    places: Places,
    state_dir: PathBuf,
    change: Change,
    told: Option<Wanted>,
    /// A file that came into use later, where this process may write only in the folder of the first.
    refused: Option<PathBuf>,
}

/// Tells the host where our names are answered; `Ok(None)`: there is no way to, or none that is allowed.
pub(super) async fn apply(
    places: &Places,
    state_dir: &Path,
    mode: DnsMode,
    wanted: Wanted,
) -> Result<Option<Applied>, DnsError> {
    apply_until(places, state_dir, mode, wanted, Stop::Never).await
}

async fn apply_until(
    places: &Places,
    state_dir: &Path,
    mode: DnsMode,
    wanted: Wanted,
    stop: Stop,
) -> Result<Option<Applied>, DnsError> {
    // Never over the journal of a change that could not be taken back.
    let _left = recover(places, state_dir).await?;
    let change = match places.way(mode) {
        Way::None => return Ok(None),
        Way::Resolved => Change::Resolved { interface: wanted.interface.clone() },
        Way::ResolvConf => Change::ResolvConf(resolv_conf::change(&places.resolv_conf)?),
    };
    journal::store(state_dir, &change)?;
    stop.before_the_change()?;
    let applied =
        Applied { places: places.clone(), state_dir: state_dir.to_owned(), change, told: None, refused: None };
    match applied.perform(&wanted).await {
        Ok(()) => Ok(Some(Applied { told: Some(wanted), ..applied })),
        Err(error) => {
            // What was half done is taken back; what cannot be stays in the journal.
            let _said_by_the_first_error = applied.undo().await;
            Err(error)
        }
    }
}

/// The file that [`recover`] will write.
pub(super) fn left_behind(state_dir: &Path) -> Option<PathBuf> {
    let Ok(Some(Change::ResolvConf(change))) = journal::load(state_dir) else { return None };
    Some(change.path)
}

/// Takes back what a killed node left; says what that was.
pub(super) async fn recover(places: &Places, state_dir: &Path) -> Result<Option<String>, DnsError> {
    let Some(change) = journal::load(state_dir)? else { return Ok(None) };
    let what = change.describe();
    revert(places, &change).await?;
    journal::remove(state_dir)?;
    Ok(Some(what))
}

impl Applied {
    /// Tells the host something else.
    pub(super) async fn change_to(&mut self, wanted: Wanted) -> Result<(), DnsError> {
        if self.told.as_ref() == Some(&wanted) {
            return self.look();
        }
        // What fails half-way is told again.
        self.told = None;
        match &self.change {
            Change::Resolved { .. } => resolved::set(&self.places.resolvectl, &wanted).await?,
            // The line there names an address that never changes.
            Change::ResolvConf(_) => self.look()?,
        }
        self.told = Some(wanted);
        Ok(())
    }

    /// Whether others may take the change back behind our back.
    pub(super) const fn is_to_be_looked_at(&self) -> bool {
        matches!(self.change, Change::ResolvConf(_))
    }

    /// Changes the file again if somebody else has written it: what was there when we came may be of another network.
    fn look(&mut self) -> Result<(), DnsError> {
        let Change::ResolvConf(old) = &self.change else { return Ok(()) };
        let Some(new) = resolv_conf::change_of_file_in_use(&self.places.resolv_conf)? else { return Ok(()) };
        if self.refused.as_ref() == Some(&new.path) {
            return Ok(());
        }
        if old.is_in_force()? && new.is_of_the_same_file(old) {
            return Ok(());
        }
        if !new.is_of_the_same_file(old) {
            old.revert()?;
        }
        let change = Change::ResolvConf(new.clone());
        journal::store(&self.state_dir, &change)?;
        self.change = change;
        self.refused = None;
        match new.perform() {
            Err(error) if error.is_refused() => {
                // Said once; it stays as a doubt.
                tracing::warn!(%error, "the host's resolver uses another file, which this process may not write");
                self.refused = Some(new.path);
                Ok(())
            }
            done => done,
        }
    }

    async fn perform(&self, wanted: &Wanted) -> Result<(), DnsError> {
        match &self.change {
            Change::Resolved { .. } => resolved::set(&self.places.resolvectl, wanted).await,
            Change::ResolvConf(change) => change.perform(),
        }
    }

    /// Leaves the host as it was.
    pub(super) async fn undo(self) -> Result<(), DnsError> {
        revert(&self.places, &self.change).await?;
        journal::remove(&self.state_dir)
    }

    pub(super) fn host(&self) -> DnsHost {
        match &self.change {
            Change::ResolvConf(_) if self.refused.is_some() => DnsHost::Untouched,
            Change::Resolved { interface } => DnsHost::Resolved { interface: interface.clone() },
            Change::ResolvConf(change) => DnsHost::ResolvConf { path: change.path.clone() },
        }
    }

    /// What keeps the names from being found in spite of the change.
    pub(super) fn doubt(&self) -> Option<String> {
        if let Some(path) = &self.refused {
            return Some(format!("{} is in use now, and may be written after a restart only", path.display()));
        }
        match &self.change {
            Change::Resolved { .. } => None,
            Change::ResolvConf(change) => change.doubt(),
        }
    }
}

async fn revert(places: &Places, change: &Change) -> Result<(), DnsError> {
    match change {
        Change::Resolved { interface } => resolved::forget(places, interface).await,
        Change::ResolvConf(change) => change.revert(),
    }
}

/// Where a test stops an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Never,
    /// The process dies when the journal is written and nothing else.
    #[cfg(test)]
    Crash,
}

impl Stop {
    #[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "only tests inject faults"))]
    fn before_the_change(self) -> Result<(), DnsError> {
        match self {
            Self::Never => Ok(()),
            #[cfg(test)]
            Self::Crash => Err(DnsError::Injected),
        }
    }
}

#[cfg(test)]
mod tests;
