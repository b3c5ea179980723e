// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemon gives up once its sockets and locks are there, and which files it goes on working with.

use std::{fs, path::Path};

use pqvpn_api::model;
use pqvpn_node::config::{Config, DnsMode};
use pqvpn_sandbox::{Confinement, Locked, Places};

use crate::{
    cli::DaemonArgs,
    context::{Context, absolute_path},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Folders that hold much that is not the daemon's, and so do the folders of people.
const SHARED: [&str; 12] = [
    "/",
    "/etc",
    "/run",
    "/var",
    "/var/run",
    "/var/log",
    "/var/lib",
    "/tmp",
    "/var/tmp",
    "/root",
    "/home",
    "/usr/local/etc",
];

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
    let places = places(context, args, config, state_dir);
    let confined = pqvpn_sandbox::confine(&places, locked);
    let Confinement { capabilities, files, packet_threads, memory, mut missing } = confined.unwrap_or_else(|error| {
        Confinement { missing: vec![format!("nothing is confined: {error}")], ..Confinement::default() }
    });
    missing.extend(places.changed.iter().filter(|folder| is_shared(folder)).map(|folder| {
        let folder = folder.display();
        format!("all of {folder} may be changed, since a file of the daemon lies there: give it a folder of its own")
    }));
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
    let left = pqvpn_node::names::left_behind(state_dir);
    let files = [settings, context.own_socket().ok(), log, pid_file, resolver, left];
    let folders = files.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned));
    // Never all there is: a file at the very top is written in place or not at all.
    let changed = folders.chain([state_dir.to_owned()]).filter(|folder| folder != Path::new("/")).collect();
    // With their folders: who renews such a file puts another one in its place.
    let lists = config.bootstrap.lists.iter().map(|list| absolute_path(list));
    let resolver = fs::canonicalize(RESOLV_CONF).unwrap_or_else(|_| RESOLV_CONF.into());
    let read = lists.chain([resolver]).map(|file| match file.parent() {
        Some(folder) if !is_shared(folder) => folder.to_owned(),
        Some(_) | None => file,
    });
    Places { changed, read: read.collect() }
}

fn is_shared(folder: &Path) -> bool {
    SHARED.iter().any(|shared| folder == Path::new(shared)) || folder.parent() == Some(Path::new("/home"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn places_of(config: &Config) -> Places {
        let line = ["pqvpn", "--config", "/a/config.toml", "--socket", "/b/sock", "--state", "/c", "daemon"];
        let cli = Cli::try_parse_from(line).unwrap();
        let args = DaemonArgs { pid_file: Some("/d/pid".into()), ..DaemonArgs::default() };
        places(&Context::new(&cli.globals), &args, config, Path::new("/c"))
    }

    #[test]
    fn the_folders_of_what_is_written_and_the_lists_that_are_read() {
        let mut config = Config::default();
        config.bootstrap.lists = vec!["/e/nodes.list".into()];
        config.logging.file = Some("/f/log".into());
        let Places { changed, read } = places_of(&config);
        assert_eq!(changed, ["/a", "/b", "/f", "/d", "/c"].map(Path::new));
        assert_eq!(read[0], Path::new("/e"), "a list that is renewed by another file is read too");
        config.bootstrap.lists = vec!["/tmp/nodes.list".into()];
        assert_eq!(places_of(&config).read[0], Path::new("/tmp/nodes.list"), "but not all that people put there");
        config.logging.file = Some("log".into());
        assert_eq!(places_of(&config).changed[2], Path::new("/c"));
    }

    #[test]
    fn the_resolver_is_changed_where_the_user_said_so_and_the_top_of_the_tree_never() {
        let mut config = Config::default();
        config.logging.file = Some("/log".into());
        assert_eq!(places_of(&config).changed.len(), 4, "without the top and without the resolver");
        config.dns.mode = DnsMode::ResolvConf;
        assert_eq!(places_of(&config).changed.len(), 5);
    }
}
