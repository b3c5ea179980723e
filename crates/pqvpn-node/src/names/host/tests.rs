// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is changed on a host is taken back: at the stop, after a crash at any point, and with others changing it too.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::names::teller::Teller;

const BEFORE: &str = "# by hand\nnameserver 192.0.2.1\nsearch example.org\n";

/// A host of its own: its files, and a resolvectl that writes down what it is told.
struct Host {
    dir: TempDir,
    places: Places,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("state")).unwrap();
        fs::write(at("resolv.conf"), BEFORE).unwrap();
        fs::set_permissions(at("resolv.conf"), fs::Permissions::from_mode(0o644)).unwrap();
        let places = Places {
            resolvectl: at("resolvectl"),
            resolved: at("io.systemd.Resolve"),
            resolv_conf: at("resolv.conf"),
            is_resolved_s_namespace: true,
        };
        Self { dir, places }
    }

    /// With systemd-resolved; `script` decides how its tool ends.
    fn with_resolved(script: &str) -> Self {
        let host = Self::new();
        fs::write(&host.places.resolved, "").unwrap();
        let log = host.dir.path().join("log");
        let text = format!("#!/bin/sh\necho \"$@\" >> {}\n{script}\n", log.display());
        fs::write(&host.places.resolvectl, text).unwrap();
        fs::set_permissions(&host.places.resolvectl, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self) -> String {
        fs::read_to_string(&self.places.resolv_conf).unwrap()
    }

    fn told(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().map(|line| line.trim_start_matches("--no-pager ").to_owned()).collect()
    }

    fn has_journal(&self) -> bool {
        journal::path(&self.state()).exists()
    }

    async fn apply(&self, mode: DnsMode) -> Result<Option<Applied>, DnsError> {
        apply(&self.places, &self.state(), mode, wanted()).await
    }

    async fn applied(&self, mode: DnsMode) -> Applied {
        self.apply(mode).await.unwrap().unwrap()
    }

    async fn recover(&self) -> Option<String> {
        recover(&self.places, &self.state()).await.unwrap()
    }
}

/// The loopback interface plays ours: it is always there.
fn wanted() -> Wanted {
    Wanted {
        interface: "lo".to_owned(),
        servers: vec!["fd01::1".parse().unwrap(), "10.100.1.1".parse().unwrap()],
        zones: vec!["pqvpn".to_owned(), "100.10.in-addr.arpa".to_owned()],
    }
}

#[test]
fn the_ways_to_tell_a_host() {
    let (plain, resolved) = (Host::new(), Host::with_resolved(""));
    let of = |host: &Host| [DnsMode::Off, DnsMode::Auto, DnsMode::ResolvConf].map(|mode| host.places.way(mode));
    assert_eq!(of(&plain), [Way::None, Way::None, Way::ResolvConf]);
    assert_eq!(of(&resolved), [Way::None, Way::Resolved, Way::Resolved]);
    let elsewhere = Host { places: Places { is_resolved_s_namespace: false, ..resolved.places }, dir: resolved.dir };
    assert_eq!(of(&elsewhere), [Way::None, Way::None, Way::ResolvConf]);
}

#[tokio::test]
async fn without_leave_resolv_conf_is_never_touched() {
    let host = Host::new();
    assert!(host.apply(DnsMode::Auto).await.unwrap().is_none());
    assert!(host.apply(DnsMode::Off).await.unwrap().is_none());
    assert_eq!((host.file().as_str(), host.has_journal()), (BEFORE, false));
}

#[tokio::test]
async fn resolved_is_asked_for_our_zones_only_and_reverted() {
    let host = Host::with_resolved("");
    let applied = host.applied(DnsMode::Auto).await;
    assert_eq!(applied.host(), DnsHost::Resolved { interface: "lo".to_owned() });
    assert!(host.has_journal());
    let expected = [
        "default-route lo false",
        "domain lo ~pqvpn ~100.10.in-addr.arpa",
        "dnssec lo no",
        "dnsovertls lo no",
        "dns lo fd01::1 10.100.1.1",
    ];
    assert_eq!(host.told(), expected);
    applied.undo().await.unwrap();
    assert_eq!(host.told().last().map(String::as_str), Some("revert lo"));
    assert!(!host.has_journal());
    assert_eq!(host.file(), BEFORE);
}

#[tokio::test]
async fn resolved_is_told_again_only_when_something_is_new() {
    let host = Host::with_resolved("");
    let mut applied = host.applied(DnsMode::Auto).await;
    let before = host.told().len();
    applied.change_to(wanted()).await.unwrap();
    assert_eq!(host.told().len(), before);
    applied.change_to(Wanted { servers: vec!["fd01::2".parse().unwrap()], ..wanted() }).await.unwrap();
    assert_eq!(host.told().last().map(String::as_str), Some("dns lo fd01::2"));
    applied.undo().await.unwrap();
}

#[tokio::test]
async fn a_killed_node_s_settings_in_resolved_are_reverted_at_the_next_start() {
    let host = Host::with_resolved("");
    drop(host.applied(DnsMode::Auto).await);
    assert!(host.has_journal());
    assert!(host.recover().await.is_some());
    assert_eq!(host.told().last().map(String::as_str), Some("revert lo"));
    assert!(!host.has_journal());
    assert_eq!(host.recover().await, None);
    // The link is gone, and the settings with it.
    let host = Host::with_resolved("");
    let gone = Wanted { interface: "no-such-link".to_owned(), ..wanted() };
    drop(apply(&host.places, &host.state(), DnsMode::Auto, gone).await.unwrap());
    let told = host.told().len();
    assert!(host.recover().await.is_some());
    assert_eq!((host.told().len(), host.has_journal()), (told, false));
}

#[tokio::test]
async fn a_failing_resolvectl_is_reported_in_its_own_words_and_undone() {
    let host = Host::with_resolved("case $2 in dns) echo 'Access denied' >&2; exit 1;; esac");
    let error = host.apply(DnsMode::Auto).await.unwrap_err().to_string();
    assert_eq!(error, "resolvectl dns lo fd01::1 10.100.1.1: Access denied");
    assert_eq!(host.told().last().map(String::as_str), Some("revert lo"));
    assert!(!host.has_journal());
    let host = Host::with_resolved("");
    fs::remove_file(&host.places.resolvectl).unwrap();
    assert!(matches!(host.apply(DnsMode::Auto).await, Err(DnsError::Run { .. })));
    // Reverting is as impossible: the journal keeps it for the next start.
    assert!(host.has_journal());
}

#[tokio::test]
async fn our_line_comes_first_and_goes_without_a_trace() {
    let host = Host::new();
    let applied = host.applied(DnsMode::ResolvConf).await;
    let lines: Vec<String> = host.file().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("# pqvpn"));
    assert_eq!(lines[1..], ["nameserver 127.112.113.53", "# by hand", "nameserver 192.0.2.1", "search example.org"]);
    let path = fs::canonicalize(&host.places.resolv_conf).unwrap();
    assert_eq!(applied.host(), DnsHost::ResolvConf { path });
    assert_eq!(applied.doubt(), None);
    let mode = fs::metadata(&host.places.resolv_conf).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
    applied.undo().await.unwrap();
    assert_eq!((host.file().as_str(), host.has_journal()), (BEFORE, false));
}

#[tokio::test]
async fn a_crash_before_or_after_the_change_is_repaired_at_the_next_start() {
    // The journal is there before the change is made.
    let host = Host::new();
    let died = apply_until(&host.places, &host.state(), DnsMode::ResolvConf, wanted(), Stop::Crash).await;
    assert!(matches!(died, Err(DnsError::Injected)));
    assert_eq!((host.file().as_str(), host.has_journal()), (BEFORE, true));
    assert!(host.recover().await.is_some());
    assert_eq!((host.file().as_str(), host.has_journal()), (BEFORE, false));
    // Killed while it was in force.
    drop(host.applied(DnsMode::ResolvConf).await);
    assert_ne!(host.file(), BEFORE);
    assert!(host.recover().await.is_some());
    assert_eq!((host.file().as_str(), host.has_journal()), (BEFORE, false));
    // Killed after the file was restored and before the journal was removed.
    drop(host.applied(DnsMode::ResolvConf).await);
    fs::write(&host.places.resolv_conf, BEFORE).unwrap();
    assert!(host.recover().await.is_some());
    assert_eq!(host.file(), BEFORE);
}

#[tokio::test]
async fn a_second_start_never_takes_our_line_for_the_user_s() {
    let host = Host::new();
    drop(host.applied(DnsMode::ResolvConf).await);
    // The next start applies without having recovered.
    let applied = host.applied(DnsMode::ResolvConf).await;
    assert_eq!(host.file().matches("127.112.113.53").count(), 1);
    applied.undo().await.unwrap();
    assert_eq!(host.file(), BEFORE);
    // Even the journal is lost.
    drop(host.applied(DnsMode::ResolvConf).await);
    journal::remove(&host.state()).unwrap();
    host.applied(DnsMode::ResolvConf).await.undo().await.unwrap();
    assert_eq!(host.file(), BEFORE);
}

#[tokio::test]
async fn what_others_wrote_meanwhile_stays() {
    let host = Host::new();
    let applied = host.applied(DnsMode::ResolvConf).await;
    fs::write(&host.places.resolv_conf, host.file() + "nameserver 192.0.2.2\n").unwrap();
    applied.undo().await.unwrap();
    assert_eq!(host.file(), format!("{BEFORE}nameserver 192.0.2.2\n"));
    let applied = host.applied(DnsMode::ResolvConf).await;
    fs::write(&host.places.resolv_conf, "nameserver 192.0.2.3\n").unwrap();
    applied.undo().await.unwrap();
    assert_eq!(host.file(), "nameserver 192.0.2.3\n");
    let applied = host.applied(DnsMode::ResolvConf).await;
    fs::remove_file(&host.places.resolv_conf).unwrap();
    applied.undo().await.unwrap();
    assert!(!host.places.resolv_conf.exists());
}

#[tokio::test]
async fn links_missing_files_and_strange_bytes() {
    let host = Host::new();
    let target = host.dir.path().join("target");
    fs::write(&target, b"# \xff\xfe\nnameserver 192.0.2.1").unwrap();
    fs::remove_file(&host.places.resolv_conf).unwrap();
    std::os::unix::fs::symlink(&target, &host.places.resolv_conf).unwrap();
    let applied = host.applied(DnsMode::ResolvConf).await;
    assert!(fs::symlink_metadata(&host.places.resolv_conf).unwrap().is_symlink());
    drop(applied);
    assert!(host.recover().await.is_some());
    assert_eq!(fs::read(&target).unwrap(), b"# \xff\xfe\nnameserver 192.0.2.1");
    fs::remove_file(&host.places.resolv_conf).unwrap();
    let applied = host.applied(DnsMode::ResolvConf).await;
    assert!(host.file().contains("127.112.113.53"));
    applied.undo().await.unwrap();
    assert!(!host.places.resolv_conf.exists());
    fs::write(&host.places.resolv_conf, vec![b'#'; 65 << 10]).unwrap();
    assert!(matches!(host.apply(DnsMode::ResolvConf).await, Err(DnsError::NotResolvConf(_))));
    assert!(!host.has_journal());
}

#[tokio::test]
async fn what_makes_our_line_useless_is_said() {
    let host = Host::new();
    for (text, part) in [
        ("options edns0 rotate\n", "rotate"),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n", "more than 3"),
    ] {
        fs::write(&host.places.resolv_conf, text).unwrap();
        let applied = host.applied(DnsMode::ResolvConf).await;
        assert!(applied.doubt().is_some_and(|doubt| doubt.contains(part)), "{part}");
        applied.undo().await.unwrap();
        assert_eq!(host.file(), text);
    }
}

#[tokio::test]
async fn an_unreadable_journal_is_moved_aside_and_a_later_one_left_alone() {
    let host = Host::new();
    let path = journal::path(&host.state());
    for junk in ["", "{", "{\"version\":1,\"change\":{\"kind\":\"hosts\"}}", "null"] {
        fs::write(&path, junk).unwrap();
        assert_eq!(host.recover().await, None, "{junk}");
        assert!(!path.exists() && path.with_extension("bad").exists());
    }
    fs::write(&path, "{\"version\":2,\"change\":{}}").unwrap();
    assert!(matches!(recover(&host.places, &host.state()).await, Err(DnsError::LaterJournal(_))));
    assert!(matches!(host.apply(DnsMode::ResolvConf).await, Err(DnsError::LaterJournal(_))));
    assert_eq!(host.file(), BEFORE);
}

#[tokio::test]
async fn what_somebody_else_wrote_meanwhile_is_what_our_line_stands_before_and_what_comes_back() {
    let host = Host::new();
    let mut applied = host.applied(DnsMode::ResolvConf).await;
    // The host has come to another network.
    let theirs = "nameserver 10.0.0.1\n";
    fs::write(&host.places.resolv_conf, theirs).unwrap();
    let other = Wanted { zones: vec!["home.pqvpn".to_owned()], ..wanted() };
    applied.change_to(other.clone()).await.unwrap();
    assert!(host.file().contains("127.112.113.53") && host.file().ends_with(theirs), "{}", host.file());
    assert!(!host.file().contains("192.0.2.1"), "that server is not here");
    // Killed now, the next start takes our line back, and no more.
    assert!(host.recover().await.is_some());
    assert_eq!(host.file(), theirs);
    applied.change_to(wanted()).await.unwrap();
    assert!(host.file().contains("127.112.113.53") && host.has_journal());
    applied.undo().await.unwrap();
    assert_eq!((host.file().as_str(), host.has_journal()), (theirs, false));
}

#[tokio::test]
async fn our_line_goes_from_a_file_that_is_not_in_use_any_more() {
    let host = Host::new();
    let (old, new) = (host.dir.path().join("old"), host.dir.path().join("new"));
    let link_to = |file| {
        fs::remove_file(&host.places.resolv_conf).unwrap();
        std::os::unix::fs::symlink(file, &host.places.resolv_conf).unwrap();
    };
    fs::write(&old, BEFORE).unwrap();
    fs::write(&new, "nameserver 10.0.0.1\n").unwrap();
    link_to(&old);
    let mut applied = host.applied(DnsMode::ResolvConf).await;
    assert!(fs::read_to_string(&old).unwrap().contains("127.112.113.53"));
    link_to(&new);
    applied.change_to(wanted()).await.unwrap();
    assert_eq!(fs::read_to_string(&old).unwrap(), BEFORE);
    assert!(fs::read_to_string(&new).unwrap().contains("127.112.113.53"));
    applied.undo().await.unwrap();
    assert_eq!(fs::read_to_string(&new).unwrap(), "nameserver 10.0.0.1\n");
}

#[tokio::test]
async fn what_resolved_was_told_in_vain_it_is_told_again() {
    let host = Host::with_resolved("test -e $0.ok");
    let ok = host.dir.path().join("resolvectl.ok");
    fs::write(&ok, "").unwrap();
    let mut applied = host.applied(DnsMode::Auto).await;
    fs::remove_file(&ok).unwrap();
    let other = Wanted { servers: vec!["fd01::2".parse().unwrap()], ..wanted() };
    assert!(applied.change_to(other.clone()).await.is_err());
    fs::write(&ok, "").unwrap();
    applied.change_to(other).await.unwrap();
    assert_eq!(host.told().last().map(String::as_str), Some("dns lo fd01::2"));
    applied.undo().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn our_line_comes_back_by_itself() {
    let host = Host::new();
    let mut teller = Teller::start(host.places.clone(), host.state(), DnsMode::ResolvConf);
    teller.tell(wanted());
    for theirs in ["nameserver 10.0.0.1\n", "nameserver 10.0.0.2\n"] {
        fs::write(&host.places.resolv_conf, theirs).unwrap();
        sleep(Duration::from_secs(61)).await;
        assert!(host.file().contains("127.112.113.53") && host.file().ends_with(theirs), "{}", host.file());
    }
    teller.undo().await;
    assert_eq!((host.file().as_str(), host.has_journal()), ("nameserver 10.0.0.2\n", false));
}

#[tokio::test]
async fn a_link_whose_file_is_missing_for_a_while_stays_a_link() {
    let host = Host::new();
    let target = host.dir.path().join("target");
    let theirs = "nameserver 10.0.0.1\n";
    fs::write(&target, BEFORE).unwrap();
    fs::remove_file(&host.places.resolv_conf).unwrap();
    std::os::unix::fs::symlink(&target, &host.places.resolv_conf).unwrap();
    let is_link = || fs::symlink_metadata(&host.places.resolv_conf).unwrap().is_symlink();
    let mut applied = host.applied(DnsMode::ResolvConf).await;
    fs::remove_file(&target).unwrap();
    applied.change_to(wanted()).await.unwrap();
    assert!(is_link() && !target.exists());
    fs::write(&target, "").unwrap();
    applied.change_to(wanted()).await.unwrap();
    assert!(is_link() && fs::read(&target).unwrap().is_empty(), "it is being written");
    fs::write(&target, theirs).unwrap();
    applied.change_to(wanted()).await.unwrap();
    assert!(is_link() && host.file().contains("127.112.113.53") && host.file().ends_with(theirs));
    applied.undo().await.unwrap();
    assert_eq!((is_link(), host.file().as_str()), (true, theirs));
    // Nor at the start.
    fs::remove_file(&target).unwrap();
    assert!(host.apply(DnsMode::ResolvConf).await.is_err());
    assert!(is_link() && !target.exists() && !host.has_journal());
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_said_once_and_left_alone() {
    let host = Host::new();
    let folder = host.dir.path().join("theirs");
    let (theirs, text) = (folder.join("resolv.conf"), "nameserver 10.0.0.1\n");
    fs::create_dir(&folder).unwrap();
    fs::write(&theirs, text).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    for open in [host.dir.path().to_owned(), host.state()] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut applied = host.applied(DnsMode::ResolvConf).await;
    fs::remove_file(&host.places.resolv_conf).unwrap();
    std::os::unix::fs::symlink(&theirs, &host.places.resolv_conf).unwrap();
    // Of this thread only: root may write everything.
    let nobody = nix::unistd::Uid::from_raw(65534);
    let root = nix::unistd::setfsuid(nobody);
    let first = applied.change_to(wanted()).await;
    let journal = || fs::metadata(journal::path(&host.state())).unwrap().modified().unwrap();
    let (written, second) = (journal(), applied.change_to(wanted()).await);
    nix::unistd::setfsuid(root);
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(written, journal(), "nothing more is stored");
    assert_eq!((host.file().as_str(), applied.host()), (text, DnsHost::Untouched));
    assert!(applied.doubt().is_some_and(|doubt| doubt.contains("restart")));
    applied.undo().await.unwrap();
    assert_eq!((host.file().as_str(), host.has_journal()), (text, false));
}
