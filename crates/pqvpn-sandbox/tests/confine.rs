// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that confines itself: what it and those it starts can do afterwards. It is a process of its own, with one
//! thread, as the daemon is then; so it is no test of the usual runner.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test says how it went")]

use std::{fs, io, path::Path, process::Command, thread};

use pqvpn_sandbox::{Locked, Places, confine};

fn main() {
    let ours = tempfile::tempdir().unwrap();
    let others = tempfile::tempdir().unwrap();
    let secret = others.path().join("secret");
    fs::write(&secret, "x").unwrap();
    let waiting = thread::spawn(thread::park);
    assert!(confine(&Places::default(), Locked::All).is_err(), "a thread from before would keep everything");
    waiting.thread().unpark();
    waiting.join().unwrap();
    // The kernel takes a thread off the list a moment after it has been waited for.
    while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        thread::yield_now();
    }

    let places = Places { changed: vec![ours.path().to_owned()], ..Places::default() };
    let confinement = confine(&places, Locked::Nothing("not asked for".to_owned())).unwrap();
    assert_eq!(confinement.missing[0], "memory lock: not asked for");
    assert!(confinement.packet_threads && !confinement.memory, "{confinement:?}");
    if confinement.files {
        looks_only_where_it_may(ours.path(), &secret);
        // Of threads and programs started later the same is true.
        let (here, there) = (ours.path().to_owned(), secret.clone());
        thread::spawn(move || looks_only_where_it_may(&here, &there)).join().unwrap();
        let cat = |file: &Path| Command::new("cat").arg(file).output().unwrap().status.success();
        assert!(cat(Path::new("/etc/hostname")) && !cat(&secret));
    } else {
        println!("SKIP: this kernel has no Landlock");
    }
    let kept = confinement.capabilities;
    assert!(kept.iter().all(|name| ["net_admin", "net_bind_service"].contains(name)), "{kept:?}");
    // Root without capabilities is somebody who owns files.
    assert!(Command::new("chroot").args(["/", "true"]).output().map_or(true, |done| !done.status.success()));
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

fn looks_only_where_it_may(ours: &Path, secret: &Path) {
    let refused = |tried: io::Result<()>| tried.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let file = ours.join("file");
    fs::write(&file, "1").unwrap();
    fs::rename(&file, ours.join("renamed")).unwrap();
    assert_eq!(fs::read_to_string(ours.join("renamed")).unwrap(), "1");
    fs::remove_file(ours.join("renamed")).unwrap();
    assert!(fs::read("/etc/hosts").is_ok() && fs::read("/proc/self/status").is_ok());
    assert!(refused(fs::read(secret).map(drop)));
    assert!(refused(fs::write(secret, "y")));
    assert!(refused(fs::remove_file(secret)));
    assert!(refused(fs::write("/etc/pqvpn-never", "y")));
    assert!(refused(fs::read_dir("/root").map(drop)));
    fs::write(ours.join("program"), "#!/bin/sh\n").unwrap();
    let mut program = Command::new("/bin/sh");
    assert!(program.arg(ours.join("program")).status().unwrap().success(), "what is read may be read");
    std::os::unix::fs::symlink("/etc", ours.join("link")).unwrap_err();
    fs::remove_file(ours.join("program")).unwrap();
}
