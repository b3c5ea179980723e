// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: with Landlock the process and its children get at those the daemon works with, whoever owns the others.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::{
    fs::{Access as Wanted, AtFlags, CWD, accessat},
    io::Errno,
};

/// Programs and their libraries: `resolvectl` is one.
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];
/// What is read: the names of hosts, users and services, and what the kernel tells. Others' memory and environment in
/// /proc stay closed.
const READ: [&str; 12] = [
    "/etc",
    "/proc",
    "/sys",
    "/dev/urandom",
    "/dev/random",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/netconfig",
    "/run/connman",
    "/run/nscd",
    "/var/lib/sss",
];
const DEVICES: [&str; 2] = ["/dev/net/tun", "/dev/null"];

/// The places of one daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Folders in which it makes, changes and removes files.
    pub changed: Vec<PathBuf>,
    /// Files and folders it reads besides those that every daemon reads.
    pub read: Vec<PathBuf>,
}

impl Places {
    /// Whether this process, as it is now, gets at all of them that are there.
    pub(crate) fn are_open(&self) -> bool {
        let open = |path: &PathBuf, how: Wanted| {
            let checked = accessat(CWD, path, how, AtFlags::EACCESS);
            !matches!(checked, Err(Errno::ACCESS | Errno::PERM))
        };
        let changed = self.changed.iter().all(|folder| open(folder, Wanted::WRITE_OK | Wanted::EXEC_OK));
        changed && self.read.iter().all(|path| open(path, Wanted::READ_OK))
    }
}

/// Takes away all other files, and signals to processes outside.
pub(crate) fn restrict(places: &Places) -> Result<(), String> {
    let status = apply(places).map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        // An older kernel: what it does not know (truncating, device controls, signals) stays open.
        RulesetStatus::PartiallyEnforced => {
            tracing::debug!("this kernel knows a part of Landlock");
            Ok(())
        }
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
    }
}

fn apply(places: &Places) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let change = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSym);
    let device: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    Ruleset::default()
        .handle_access(all)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(&places.read, read))?
        .add_rules(path_beneath_rules(&places.changed, change))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .restrict_self()
}
