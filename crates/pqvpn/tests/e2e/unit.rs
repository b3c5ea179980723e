// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon under the very limits of `packaging/systemd/pqvpnd.service`: they are read from the file and set by the test
//! itself, as systemd is not the first process where tests run. A score (lane `unit-file`) does not prove that it works.

#[path = "unit/filters.rs"]
mod filters;
#[path = "unit/limits.rs"]
mod limits;
#[path = "unit/mounts.rs"]
mod mounts;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use pqvpn_lab::{
    process::wait_until,
    topology::{Host, pair},
};

use self::limits::{NICE_LIMIT, Unit};
use crate::{
    proc::HostState,
    rig::{LIMIT, Node, PORT, poll, tail, usable},
};

/// Somebody the system does not know.
const USER: u32 = 65_533;
/// A program in a node's folder that stands in for the resolver's tool.
const RESOLVECTL: &str = "resolvectl";
/// Where a node's folder is for its daemon.
const PLACE: &str = "/mnt";

/// Whether this process may set limits of every kind; says why not.
fn may_set_limits() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().nth(2) == Some("4294967295");
    if !whole || !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP: only root can become the user of a service");
        return false;
    }
    if !crate::rig::has("systemd-analyze") {
        return false;
    }
    usable()
}

/// A node whose folder is laid out like the places the unit names.
struct Service {
    node: Node,
    host: Host,
    process: Option<Child>,
}

impl Service {
    fn new(host: Host, name: &str) -> Self {
        let node = Node::new(&host.namespace, name);
        let dir = node.dir.path();
        fs::create_dir(dir.join("run")).unwrap();
        symlink("run/sock", dir.join("sock")).unwrap();
        fs::write(dir.join("pqvpn"), "").unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self { node, host, process: None }
    }

    /// Gives its files to the user of the service, as systemd does with the folders it makes.
    fn give(&self) {
        let dir = self.node.dir.path();
        for folder in ["state", "run"] {
            for file in fs::read_dir(dir.join(folder)).unwrap() {
                chown(file.unwrap().path(), Some(USER), Some(USER)).unwrap();
            }
            chown(dir.join(folder), Some(USER), Some(USER)).unwrap();
        }
        chown(dir.join("config.toml"), Some(0), Some(USER)).unwrap();
        fs::set_permissions(dir.join("config.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    }

    /// Runs a command line of the unit under its limits.
    fn run(&self, unit: &Unit, line: &str) -> Child {
        let dir = self.node.dir.path().to_owned();
        let words = limits::limited(unit, line.split_whitespace().map(placed));
        let (out, err) = (self.file("out"), self.file("err"));
        let unit = unit.clone();
        let confined = self.host.namespace.thread("unit", move || {
            mounts::enter(&unit, &dir, &crate::rig::binary());
            limits::apply(&unit, USER);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(out).stderr(err);
            for name in ["PQVPN_CONFIG", "PQVPN_STATE", "PQVPN_SOCKET"] {
                command.env_remove(name);
            }
            command.args(["--log-level", "debug"]).spawn().unwrap()
        });
        confined.unwrap().join().unwrap()
    }

    fn file(&self, name: &str) -> fs::File {
        fs::File::create(self.node.file(name)).unwrap()
    }

    fn start(&mut self, unit: &Unit) {
        self.give();
        self.process = Some(self.run(unit, unit.one("ExecStart")));
    }

    fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.node.file(name)).unwrap_or_default();
        read("out") + &read("err")
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    fn wait_for(&mut self, text: &str) {
        poll(text, || {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
            assert!(ended.is_none(), "{ended:?}: {}", tail(&self.said()));
            self.said().contains(text).then_some(())
        });
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
        let mut process = self.process.take().unwrap();
        poll("the end of the service", || process.try_wait().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _gone = process.kill().and_then(|()| process.wait());
        }
    }
}

/// A word of a command line, with the places of a node in the stead of those of a system.
fn placed(word: &str) -> String {
    let places = [
        ("/usr/bin/pqvpn", "pqvpn"),
        ("/etc/pqvpn/config.toml", "config.toml"),
        ("/var/lib/pqvpn", "state"),
        ("/run/pqvpn/pqvpn.sock", "run/sock"),
    ];
    let place = places.iter().find(|(of_system, _)| *of_system == word);
    place.map_or_else(|| word.to_owned(), |(_, here)| format!("{PLACE}/{here}"))
}

fn unit() -> Unit {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd/pqvpnd.service");
    Unit::read(&fs::read_to_string(path).unwrap())
}

fn two_services() -> (Service, Service) {
    let (host_a, host_b) = pair("a", "b").unwrap();
    let at = |host: &Host| (host.ipv4, PORT).into();
    let (at_a, at_b) = (at(&host_a), at(&host_b));
    let (a, b) = (Service::new(host_a, "a"), Service::new(host_b, "b"));
    a.node.configure(&[b.node.as_peer(Some(at_b))], "");
    b.node.configure(&[a.node.as_peer(Some(at_a))], "");
    (a, b)
}

/// The nice values of a daemon's packet threads (proc_pid_stat(5), field 19).
fn nice_of_packet_threads(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
    let of_one = |stat: String| {
        let (name, fields) = stat.rsplit_once(") ").unwrap();
        let is_packets = name.contains("(pqvpn-net-") || name.contains("(pqvpn-out-");
        is_packets.then(|| fields.split(' ').nth(16).unwrap().parse().unwrap())
    };
    stats.filter_map(of_one).collect()
}

#[test]
fn two_daemons_under_the_limits_of_the_unit_meet_and_leave_the_host_as_it_was() {
    if !may_set_limits() {
        return;
    }
    let unit = unit();
    let (mut a, mut b) = two_services();
    let before = HostState::of(&a.host.namespace);
    for service in [&mut a, &mut b] {
        service.start(&unit);
    }
    for service in [&mut a, &mut b] {
        service.wait_for("ready");
    }
    let ping = a.node.ping(&b.node);
    assert!(ping.is_ok(), "{ping:?}\n{}\n{}", tail(&a.said()), tail(&b.said()));
    let status = fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    for line in ["Uid:\t65533\t65533\t65533\t65533", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000001400"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    // Root of a container may not raise this limit: then there is nothing to see.
    let packet_threads = nice_of_packet_threads(a.pid());
    let is_raised = getrlimit(Resource::RLIMIT_NICE).is_ok_and(|(now, _)| now >= NICE_LIMIT);
    assert!(
        !packet_threads.is_empty() && packet_threads.iter().all(|&nice| !is_raised || nice == -10),
        "{packet_threads:?}"
    );
    let now = a.node.status();
    assert!(now.health.iter().all(|item| item.code != "weak-host"), "{:?}", now.health);
    let confinement = now.confinement.unwrap();
    // Where root may not raise the limit of locked memory, this test cannot give what the unit gives.
    let missing = confinement.missing.iter().filter(|what| !what.starts_with("memory lock: RLIMIT_MEMLOCK"));
    assert_eq!(missing.count(), 0, "{confinement:?}");
    assert!(!a.said().contains("Operation not permitted"), "{}", tail(&a.said()));

    // Killed, cleaned up after by the unit's own line, started again, stopped.
    a.end(Signal::SIGKILL);
    let mut cleaned = a.run(&unit, unit.one("ExecStopPost"));
    let ended = cleaned.wait().unwrap();
    assert!(ended.success() && a.said().contains("kept: "), "{ended:?} {}", a.said());
    a.start(&unit);
    a.wait_for("ready");
    assert!(a.node.ping(&b.node).is_ok());
    assert_eq!(a.end(Signal::SIGTERM).code(), Some(0), "{}", tail(&a.said()));
    before.assert_still(&a.host.namespace, "after a service was killed, cleaned up after, started and stopped");
}

#[test]
fn without_a_limit_that_is_needed_the_daemon_says_so_and_with_a_place_less_too() {
    if !may_set_limits() {
        return;
    }
    let (host, _other) = pair("a", "b").unwrap();
    let mut service = Service::new(host, "a");
    for (key, value, said) in [
        ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX", "netlink"),
    ] {
        let mut unit = unit();
        unit.replace(key, value);
        service.start(&unit);
        let ended =
            poll("the end of a service that cannot work", || service.process.as_mut().unwrap().try_wait().unwrap());
        assert!(!ended.success(), "{key}");
        assert!(service.said().contains(said), "{key}: {}", service.said());
    }
}

/// The one program the daemon starts, with all that the unit and the daemon itself take away.
#[test]
fn the_tool_of_the_resolver_is_started_under_the_limits_of_the_unit() {
    if !may_set_limits() {
        return;
    }
    let (host, _other) = pair("a", "b").unwrap();
    let mut service = Service::new(host, "a");
    let (tool, told) = (service.node.file(RESOLVECTL), service.node.file("state/told"));
    fs::write(&tool, format!("#!/bin/sh\necho \"$@\" >> {PLACE}/state/told\n")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    service.start(&unit());
    service.wait_for("ready");
    crate::networks::json(&service.node, &["net", "create", "home"]);
    let read = || fs::read_to_string(&told).unwrap_or_default();
    let heard = wait_until("what the resolver is told", LIMIT, || read().contains("dns pqvpn0 fd").then_some(()));
    let status = || service.node.cli(&["dns", "status"]).stdout;
    assert!(heard.is_ok(), "{}\n{}\n{}", read(), status(), tail(&service.said()));
    assert!(read().contains("~pqvpn"), "{}", read());
    service.end(Signal::SIGTERM);
    assert!(read().contains("revert pqvpn0"), "{}", read());
}

/// What no service may do under these limits; each is tried by a program of the system.
#[test]
fn under_the_limits_of_the_unit_nothing_else_is_possible() {
    if !may_set_limits() {
        return;
    }
    let unit = unit();
    let (host, _other) = pair("a", "b").unwrap();
    let service = Service::new(host, "a");
    service.give();
    let script = |text: &str| {
        fs::write(service.node.file("try"), format!("#!/bin/sh\nexec 2>&1\n{text}\n")).unwrap();
        fs::set_permissions(service.node.file("try"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut tried = service.run(&unit, &format!("{PLACE}/try"));
        thread::yield_now();
        (tried.wait().unwrap().success(), service.said())
    };
    let (done, said) = script("touch /mnt/state/x /mnt/run/x /tmp/x && cat /mnt/config.toml && ls /dev/net/tun");
    assert!(done, "{said}");
    for refused in [
        "touch /etc/x",
        "touch /usr/x",
        "touch /mnt/x",
        "ls /root/. | grep .",
        "ls /home | grep .",
        "cat /dev/kmsg",
        "ls /dev/mem",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "ls /proc/1",
        "mount -t tmpfs x /mnt/state",
        "unshare --user true",
        "unshare --mount true",
        "setpriv --reuid 0 true",
        "chroot / true",
        "date -s 2001-01-01",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
        "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'",
        "python3 -c 'import os; os.chmod(\"/mnt/state\", 0o4700)'",
        "python3 -c 'import os; os.sched_setaffinity(0, [0])'",
    ] {
        let (done, said) = script(refused);
        assert!(!done, "{refused}: {said}");
    }
}
