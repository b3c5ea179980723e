// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes that fail: each system call of an order in turn, a disk that is full or read-only, files of somebody else.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pqvpn_lab::topology::internet;
use serde_json::json;

use super::{
    QUIET, count, is_whole,
    orders::{self, Kind, Order, Seen},
    pick, ready_or_gone,
};
use crate::{
    networks::{alone, invite, json, meets, node},
    rig::{LIMIT, Node, has, poll, tail, usable},
};

/// Faults tried where nobody says how many.
const FEW: u64 = 16;
/// System calls that write, and how they fail.
const FAULTS: [(&str, &str); 12] = [
    ("openat", "ENOSPC"),
    ("openat", "EROFS"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EIO"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("ftruncate", "ENOSPC"),
    ("rename,renameat,renameat2", "EIO"),
    ("rename,renameat,renameat2", "ENOSPC"),
    ("unlink,unlinkat", "EIO"),
    ("fchmod,chmod,fchmodat", "EROFS"),
];
const KINDS: [Kind; 5] = [Kind::Create, Kind::Rotate, Kind::Set, Kind::Door, Kind::Leave];
/// Which of the calls fails at most: no order makes so many.
const MANY: usize = 40;

/// One fault: which call, how, and the how manieth; or that one and all after it.
#[derive(Debug, Clone, Copy)]
struct Fault {
    calls: &'static str,
    error: &'static str,
    at: usize,
    for_good: bool,
}

#[test]
fn every_system_call_that_fails_leaves_the_old_or_the_new() {
    if !usable() || !has("strace") {
        return;
    }
    let net = internet(1).unwrap();
    let mut a = node(&net.hosts[0], "a", QUIET);
    a.start_up();
    json(&a, &["net", "create", "first"]);
    let (mut seen, mut dice, mut tally) = (orders::look(&a), 0xfa17_u64, [0; 3]);
    let wanted = count("PQVPN_FAULTS", FEW);
    let everything = wanted > 1000;
    let pairs: Vec<_> = FAULTS.iter().flat_map(|fault| KINDS.map(|kind| (*fault, kind))).collect();
    let mut number = 0;
    let mut each = |a: &mut Node, seen: &mut Seen, fault: Fault, kind| {
        number += 1;
        let injected = one(a, seen, fault, kind, number);
        tally[usize::from(injected)] += 1;
        injected
    };
    if everything {
        for ((calls, error), kind) in pairs {
            for for_good in [false, true] {
                // Until the order makes no further call of that sort.
                let _last = (1..=MANY).find(|&at| !each(&mut a, &mut seen, Fault { calls, error, at, for_good }, kind));
            }
        }
    } else {
        for _ in 0..wanted {
            let ((calls, error), kind) = pairs[pick(&mut dice, pairs.len())];
            let (at, for_good) = (1 + pick(&mut dice, 4), pick(&mut dice, 3) == 0);
            each(&mut a, &mut seen, Fault { calls, error, at, for_good }, kind);
        }
    }
    eprintln!("FIGURE write_faults tried={number} injected={} without_effect={} broken=0", tally[1], tally[0]);
    a.stop();
}

/// One order with one fault, and a start afterwards; whether the fault came about.
fn one(a: &mut Node, seen: &mut Seen, fault: Fault, kind: Kind, number: u64) -> bool {
    let order = Order::of(kind, number, seen);
    let log = a.file("strace.log");
    let tracer = Tracer::attach(a.daemon().pid(), fault, &log);
    let answer = orders::send(&a.file("sock"), &order.request);
    drop(tracer);
    let injected = fs::read_to_string(&log).unwrap_or_default().contains("INJECTED");
    let said = tail(&a.daemon().stderr());
    // It may have ended by itself, where it could not go on.
    a.crash();
    a.start_up();
    let now = orders::look(a);
    let whole = is_whole(a);
    assert!(whole.is_ok(), "{fault:?} {order:?}: {whole:?}\n{said}");
    if let Err(why) = order.judge(seen, &now, answer.as_ref()) {
        panic!("{fault:?} in {order:?} ({answer:?}): {why}\nbefore {seen:?}\nafter {now:?}\n{said}");
    }
    *seen = now;
    injected
}

/// A strace that makes calls of a process fail; lets go when dropped.
struct Tracer(Child);

impl Tracer {
    fn attach(pid: u32, fault: Fault, log: &Path) -> Self {
        let Fault { calls, error, at, for_good } = fault;
        let _from_before = fs::remove_file(log);
        let more = if for_good { "+" } else { "" };
        let child = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={calls}"), "-p", &pid.to_string(), "-o"])
            .arg(log)
            .args(["-e", &format!("inject={calls}:error={error}:when={at}{more}")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0")
        };
        poll("strace to attach", || {
            let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            tasks.all(traced).then_some(())
        });
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _gone = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ended = self.0.wait();
    }
}

/// A small disk under a directory.
struct Disk(PathBuf);

impl Disk {
    fn under(path: &Path, kib: u32) -> Self {
        let options = format!("size={kib}k,mode=700");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(path.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves room for so many pages.
    fn leave(&self, pages: u64) {
        self.free();
        let mut filler = fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        let len = filler.metadata().unwrap().len();
        filler.set_len(len.saturating_sub(pages * 4096)).unwrap();
    }

    fn free(&self) {
        let _none = fs::remove_file(self.filler());
    }

    fn read_only(&self, on: bool) {
        let flags = MsFlags::MS_REMOUNT | if on { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_refuses_orders_and_nothing_else() {
    if !usable() {
        return;
    }
    let net = internet(2).unwrap();
    let mut b = alone(&net.hosts[1], "b");
    json(&b, &["net", "create", "friends"]);
    let mut a = node(&net.hosts[0], "a", QUIET);
    fs::remove_dir_all(a.file("state")).unwrap();
    fs::create_dir(a.file("state")).unwrap();
    let disk = Disk::under(&a.file("state"), 8192);
    a.start_up();
    json(&a, &["net", "create", "first"]);
    json(&a, &["join", &invite(&b, &[])]);
    meets(&a, "b.friends");
    let mut seen = orders::look(&a);
    let (mut refused, mut done) = (0, 0);
    for pages in [0, 1, 3, 8] {
        for (number, kind) in [Kind::Create, Kind::Rotate, Kind::Door].into_iter().enumerate() {
            disk.leave(pages);
            let order = Order::of(kind, 1000 + pages * 10 + number as u64, &seen);
            let answer = orders::send(&a.file("sock"), &order.request);
            eprintln!("room for {pages} pages: {kind:?} {}", if answer.is_some() { "done" } else { "refused" });
            *if answer.is_some() { &mut done } else { &mut refused } += 1;
            if a.daemon().exited().unwrap().is_none() {
                meets(&a, "b.friends");
            }
            a.crash();
            // It starts on a disk as full as that, or says why not; either way nothing is lost.
            a.start();
            if !ready_or_gone(&a) {
                let said = a.daemon().wait(LIMIT).unwrap().stderr;
                assert!(said.contains("space"), "{}", tail(&said));
                disk.free();
                a.start_up();
            }
            disk.free();
            let now = orders::look(&a);
            assert!(is_whole(&a).is_ok(), "{pages} {kind:?}: {:?}", is_whole(&a));
            if let Err(why) = order.judge(&seen, &now, answer.as_ref()) {
                panic!("{pages} pages, {order:?} ({answer:?}): {why}\nbefore {seen:?}\nafter {now:?}");
            }
            seen = now;
        }
    }
    assert!(refused > 0, "the disk was never full");
    eprintln!("FIGURE full_disk refused={refused} done={done} broken=0");
    disk.leave(0);
    assert!(
        orders::send(&a.file("sock"), &("/networks", json!({"name": "x", "approval": false, "quorum": 1}))).is_none()
    );
    disk.free();
    // What failed may be under way still.
    a.wait("space again", || a.cli(&["net", "create", "space-again"]).status.success().then_some(()));
    meets(&a, "b.friends");
    a.stop();
    b.stop();
}

#[test]
fn a_disk_or_file_that_is_not_ours_to_write_is_said_and_left_alone() {
    if !usable() || !nix::unistd::geteuid().is_root() {
        return;
    }
    let net = internet(1).unwrap();
    let mut a = node(&net.hosts[0], "a", QUIET);
    fs::remove_dir_all(a.file("state")).unwrap();
    fs::create_dir(a.file("state")).unwrap();
    let disk = Disk::under(&a.file("state"), 8192);
    a.start_up();
    json(&a, &["net", "create", "first"]);
    let seen = orders::look(&a);
    a.stop();

    disk.read_only(true);
    refuses_to_start(&mut a, "ead-only");
    disk.read_only(false);
    comes_back(&mut a, &seen);

    let files = ["", "keystore", "networks.redb", "lock"].map(|name| a.file("state").join(name));
    for path in &files[..3] {
        chown(path, Some(65534), None).unwrap();
        refuses_to_start(&mut a, "");
        chown(path, Some(0), None).unwrap();
        comes_back(&mut a, &seen);
    }
    for path in &files[1..] {
        let away = a.file("away");
        fs::copy(path, &away).unwrap();
        fs::set_permissions(&away, fs::Permissions::from_mode(0o600)).unwrap();
        let before = fs::read(&away).unwrap();
        fs::remove_file(path).unwrap();
        symlink(&away, path).unwrap();
        refuses_to_start(&mut a, "");
        assert_eq!(fs::read(&away).unwrap(), before, "{} was written through a link", path.display());
        fs::remove_file(path).unwrap();
        fs::copy(&away, path).unwrap();
        comes_back(&mut a, &seen);
    }
}

/// It ends with an error that says what is wrong.
fn refuses_to_start(a: &mut Node, why: &str) {
    a.start();
    assert!(!ready_or_gone(a), "it started");
    let said = a.daemon().wait(LIMIT).unwrap().stderr;
    assert!(said.contains("error: ") && said.contains("  why: ") && said.contains("  try: "), "{said}");
    assert!(said.contains(why), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn comes_back(a: &mut Node, seen: &Seen) {
    a.start_up();
    assert_eq!(orders::look(a), *seen);
    assert!(is_whole(a).is_ok(), "{:?}", is_whole(a));
    a.stop();
}
