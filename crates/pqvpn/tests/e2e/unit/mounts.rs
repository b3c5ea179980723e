// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files a unit leaves in sight, in a mount namespace of the calling thread.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, mknod},
};

use super::{PLACE, RESOLVECTL, limits::Unit};

/// Devices every service has, and the one the unit allows.
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "net/tun"];
const NOTHING: Option<&str> = None;

/// Moves the calling thread into a namespace with the mounts of the unit; the folder of a node is at [`PLACE`].
pub(super) fn enter(unit: &Unit, node: &Path, binary: &Path) {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).unwrap();
    bind(node, Path::new(PLACE));
    bind(binary, &Path::new(PLACE).join("pqvpn"));
    let writable = ["state", "run"].map(|name| Path::new(PLACE).join(name));
    for folder in &writable {
        bind(folder, folder);
    }
    assert!(unit.is("DevicePolicy", "closed") && unit.is("DeviceAllow", "/dev/net/tun rw"));
    devices();
    assert!(unit.is("PrivateTmp", "yes") && unit.is("ProtectHome", "yes"));
    let temporary = ["/tmp", "/var/tmp"].map(PathBuf::from);
    for folder in &temporary {
        empty(folder, "mode=1777");
    }
    for folder in ["/home", "/root", "/run/user"] {
        empty(Path::new(folder), "mode=0700");
    }
    if Path::new(PLACE).join(RESOLVECTL).exists() {
        // A resolver that runs, and its tool.
        empty(Path::new("/run"), "mode=0755");
        fs::create_dir_all("/run/systemd/resolve").unwrap();
        fs::write("/run/systemd/resolve/io.systemd.Resolve", "").unwrap();
        empty(Path::new("/usr/local/bin"), "mode=0755");
        fs::copy(Path::new(PLACE).join(RESOLVECTL), Path::new("/usr/local/bin").join(RESOLVECTL)).unwrap();
    }
    assert!(unit.is("ProtectProc", "invisible"));
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("hidepid=invisible")).unwrap();
    for key in ["ProtectKernelTunables", "ProtectControlGroups", "ProtectKernelModules", "ProtectKernelLogs"] {
        assert!(unit.is(key, "yes"), "{key}");
    }
    assert!(unit.is("ProtectSystem", "strict"));
    // What is kept from changes is all but these.
    let free: Vec<PathBuf> = writable.into_iter().chain(temporary).chain(["/dev".into(), "/proc".into()]).collect();
    read_only(&free);
    bind(Path::new("/proc/sys"), Path::new("/proc/sys"));
    remount_read_only("/proc/sys", MsFlags::empty());
}

fn bind(from: &Path, to: &Path) {
    let bound = mount(Some(from), to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING);
    bound.unwrap_or_else(|error| panic!("{} at {}: {error}", from.display(), to.display()));
}

fn empty(folder: &Path, options: &str) {
    if folder.is_dir() {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    }
}

/// A new /dev, with few devices; everybody may open them, as udev has it.
fn devices() {
    let numbers = DEVICES.map(|name| (name, fs::metadata(Path::new("/dev").join(name)).unwrap().rdev()));
    empty(Path::new("/dev"), "mode=0755");
    fs::create_dir("/dev/net").unwrap();
    for (name, number) in numbers {
        let there = Path::new("/dev").join(name);
        mknod(&there, SFlag::S_IFCHR, Mode::empty(), number).unwrap();
        fs::set_permissions(there, fs::Permissions::from_mode(0o666)).unwrap();
    }
}

fn read_only(free: &[PathBuf]) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (place, options) = (fields[4].replace("\\040", " "), fields[5]);
        let is_free = |folder: &PathBuf| Path::new(&place).starts_with(folder);
        if free.iter().any(is_free) {
            continue;
        }
        let flag = |name: &str, flag| if options.split(',').any(|one| one == name) { flag } else { MsFlags::empty() };
        let kept =
            flag("nosuid", MsFlags::MS_NOSUID) | flag("nodev", MsFlags::MS_NODEV) | flag("noexec", MsFlags::MS_NOEXEC);
        remount_read_only(&place, kept);
    }
}

fn remount_read_only(place: &str, kept: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
    // One that is covered by another cannot be reached, and by the service neither.
    let _covered = mount(NOTHING, place, NOTHING, flags, NOTHING);
}
