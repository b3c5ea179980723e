// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd-resolved, through its own tool: settings of one link, gone with it.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{DnsError, Places, Wanted};

/// How long resolvectl may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most of its complaint that is repeated, in characters.
const COMPLAINT: usize = 200;

/// Whether the links of this network namespace are those systemd-resolved knows: indices mean other links elsewhere.
pub(super) fn is_in_our_namespace() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|meta| meta.ino());
    match (inode("/proc/self/ns/net"), inode("/proc/1/ns/net")) {
        (Ok(own), Ok(first)) => own == first,
        // Without the right to look, or where other users' processes are hidden, this is an ordinary service: those are
        // started where the first process is.
        (Ok(_), Err(error)) => [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound].contains(&error.kind()),
        (Err(_), _) => false,
    }
}

/// Asks systemd-resolved to ask us for our zones, and for nothing else.
pub(super) async fn set(resolvectl: &Path, wanted: &Wanted) -> Result<(), DnsError> {
    let interface = wanted.interface.as_str();
    let servers: Vec<String> = wanted.servers.iter().map(ToString::to_string).collect();
    // "~": a zone to route queries by, not one to complete short names with.
    let zones: Vec<String> = wanted.zones.iter().map(|zone| format!("~{zone}")).collect();
    let list = |verb: &'static str, items: Vec<String>| [vec![verb.to_owned(), interface.to_owned()], items].concat();
    // Not the default before the servers: no other query comes here, not even for a moment.
    for arguments in [
        list("default-route", vec!["false".to_owned()]),
        list("domain", zones),
        // The zone is nobody's in the public DNS, so it cannot be signed by anybody there.
        list("dnssec", vec!["no".to_owned()]),
        list("dnsovertls", vec!["no".to_owned()]),
        list("dns", servers),
    ] {
        run(resolvectl, &arguments).await?;
    }
    Ok(())
}

/// Takes all settings of a link back; one that is gone has none.
pub(super) async fn forget(places: &Places, interface: &str) -> Result<(), DnsError> {
    if !places.resolved.exists() || nix::net::if_::if_nametoindex(interface).is_err() {
        return Ok(());
    }
    run(&places.resolvectl, &["revert".to_owned(), interface.to_owned()]).await
}

async fn run(resolvectl: &Path, arguments: &[String]) -> Result<(), DnsError> {
    let mut command = Command::new(resolvectl);
    command.arg("--no-pager").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |source| DnsError::Run { program: resolvectl.display().to_string(), source };
    let ended = timeout(PATIENCE, command.output()).await;
    let output = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let why: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(COMPLAINT).collect();
    Err(DnsError::Resolvectl { what: arguments.join(" "), why })
}
