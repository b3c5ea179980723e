// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemon gives up once its sockets and locks are there, and which files it goes on working with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pqvpn_api::model;
use pqvpn_node::config::{Config, DnsMode};
use pqvpn_sandbox::{Confinement, Locked, Places};

use crate::{
    cli::DaemonArgs,
    context::{Context, absolute_path},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Confines this process, which has one thread yet; what cannot be done is logged, and said in `status`.
pub(super) fn confine(
    context: &Context,
    args: &DaemonArgs,
    config: &Config,
    state_dir: &Path,
    locked: Locked,
) -> model::Confinement {
    // Later there is no right to look.
    pqvpn_node::names::look_for_resolver();
    let confined = pqvpn_sandbox::confine(&places(context, args, config, state_dir), locked);
    let Confinement { capabilities, files, packet_threads, memory, missing } = confined.unwrap_or_else(|error| {
        Confinement { missing: vec![format!("nothing is confined: {error}")], ..Confinement::default() }
    });
    if packet_threads {
        pqvpn_node::confine_packet_threads(pqvpn_sandbox::packet_thread);
    }
    if missing.is_empty() {
        tracing::debug!(?capabilities, "confined");
    } else {
        tracing::warn!(missing = missing.join("; "), "less confined than could be");
    }
    let capabilities = capabilities.into_iter().map(str::to_owned).collect();
    model::Confinement { capabilities, files, packet_threads, memory, missing }
}

/// The folders of everything this daemon writes: each file is replaced as a whole, so its folder is what counts.
fn places(context: &Context, args: &DaemonArgs, config: &Config, state_dir: &Path) -> Places {
    let settings = context.config_path().ok();
    // Made now if `set` would make it later.
    let _not_ours_to_make = settings.as_deref().and_then(Path::parent).map(fs::create_dir_all);
    let log = config.logging.file.as_deref().map(|file| state_dir.join(file));
    let pid_file = args.pid_file.as_deref().map(absolute_path);
    let resolver = (config.dns.mode == DnsMode::ResolvConf)
        .then(|| fs::canonicalize(RESOLV_CONF).unwrap_or_else(|_| RESOLV_CONF.into()));
    let files = [settings, context.own_socket().ok(), log, pid_file, resolver];
    let folders = files.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned));
    let changed = folders.chain([state_dir.to_owned()]).filter(|folder| folder != Path::new("/")).collect();
    // Where /etc/resolv.conf is a link to, and where the file that is the state directory's is.
    let read: Vec<PathBuf> = fs::canonicalize(RESOLV_CONF).ok().into_iter().collect();
    Places { changed, read }
}
