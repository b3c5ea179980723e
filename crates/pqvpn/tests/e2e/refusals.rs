// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cannot work is refused with what, why and what to try, the promised exit code, and nothing left behind.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use ipnet::{IpNet, Ipv4Net};
use nix::unistd::geteuid;
use pqvpn_lab::{
    process::{Finished, run},
    topology::{Host, add_route, pair, veth},
};

use crate::{
    hygiene::assert_nothing_left,
    proc::HostState,
    rig::{LIMIT, Node, PORT, TUN, binary, has, usable},
};

/// A user without privilege on every system.
const NOBODY: &str = "65534";

/// Exit codes of cli.md.
const FAILED: i32 = 1;
const BAD_CONFIG: i32 = 2;
const NO_DAEMON: i32 = 3;
const NOT_ALLOWED: i32 = 4;

/// A host with one node on it, and somebody next to it.
struct Scene {
    node: Node,
    host: Host,
    neighbour: Host,
    before: HostState,
}

impl Scene {
    fn new() -> Option<Self> {
        if !usable() {
            return None;
        }
        let (host, neighbour) = pair("a", "b").unwrap();
        let node = Node::new(&host.namespace, "a");
        let before = HostState::of(&host.namespace);
        Some(Self { node, host, neighbour, before })
    }

    /// The daemon must end with `code` and say all of `words`; the host stays as it was.
    fn refused(&self, code: i32, words: &[&str]) {
        let before = HostState::of(&self.host.namespace);
        let finished = self.node.cli(&["daemon"]);
        check(&finished, code, words);
        before.assert_still(&self.host.namespace, &format!("after a refusal ({})", words.join(", ")));
        assert_nothing_left(&self.node);
    }

    /// With the obstacle away the same daemon starts, and leaves nothing.
    fn recovers(&mut self) {
        self.node.start_up();
        self.node.stop();
        self.before.assert_still(&self.host.namespace, "after a good run");
        assert_nothing_left(&self.node);
    }
}

fn check(finished: &Finished, code: i32, words: &[&str]) {
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(code), "{words:?}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    let has = |start: &str| lines.iter().filter(|line| line.trim_start().starts_with(start)).count();
    assert_eq!((has("error: "), has("try: ")), (1, 1), "{said}");
    assert!(has("why: ") >= 1, "{said}");
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} not in: {said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
}

#[test]
fn bad_configs_name_file_line_key_and_what_was_expected() {
    let Some(mut scene) = Scene::new() else { return };
    let good = fs::read_to_string(scene.node.file("config.toml")).unwrap();
    let id = &scene.node.id;
    let cases: [(&str, &[&str]); 9] = [
        ("[node\n", &["config.toml", ":1"]),
        ("[node]\nnmae = \"x\"\n", &["config.toml:2", "nmae", "did you mean", "name"]),
        ("[nod]\nname = \"x\"\n", &["config.toml:1", "did you mean", "node"]),
        ("[node]\nlisten = [\"nowhere\"]\n", &["config.toml:2", "node.listen", "nowhere"]),
        ("[node]\nlisten = [\"0.0.0.0:5\", \"127.0.0.1:5\"]\n", &["config.toml:2", "same port"]),
        ("[interface]\nipv4 = false\nipv6 = false\n", &["config.toml", "both off"]),
        ("[interface]\nmtu = 9\n", &["config.toml:2", "interface.mtu"]),
        ("[[peers]]\nid = \"abc\"\n", &["config.toml:2", "peers[0].id", "64"]),
        ("[crypto]\ncipher = \"none\"\n", &["config.toml:2", "crypto.cipher", "chacha20-poly1305"]),
    ];
    for (text, words) in cases {
        scene.node.write_config(text);
        scene.refused(BAD_CONFIG, words);
    }
    scene.node.write_config(&format!("{good}\n[[peers]]\nid = \"{id}\"\n"));
    scene.refused(BAD_CONFIG, &["config.toml", "peers[0].id", "this node itself"]);
    fs::write(scene.node.file("config.toml"), [b'[', 0xff, 0xfe]).unwrap();
    scene.refused(BAD_CONFIG, &["config.toml", "UTF-8"]);
    fs::remove_file(scene.node.file("config.toml")).unwrap();
    scene.refused(BAD_CONFIG, &["config.toml"]);
    fs::create_dir(scene.node.file("config.toml")).unwrap();
    scene.refused(BAD_CONFIG, &["config.toml"]);
    fs::remove_dir(scene.node.file("config.toml")).unwrap();
    scene.node.write_config(&good);
    scene.recovers();
}

#[test]
fn bad_key_files_are_refused_and_kept() {
    let Some(mut scene) = Scene::new() else { return };
    let path = scene.node.file("state/keystore");
    let good = fs::read(&path).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o644, 0o640, 0o604] {
        mode(open);
        scene.refused(NOT_ALLOWED, &["keystore", &format!("{open:04o}"), "chmod"]);
    }
    mode(0o600);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut newer = good.clone();
    newer.extend([0; 3]);
    let cases: [(&[u8], &[&str]); 5] = [
        (&[], &["keystore", "size"]),
        (&good[..good.len() - 1], &["keystore", "damaged"]),
        (&newer, &["keystore", "damaged"]),
        (&flipped, &["keystore", "checksum"]),
        (&[0x41; 4096], &["keystore"]),
    ];
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        scene.refused(FAILED, words);
        assert_eq!(fs::read(&path).unwrap(), bytes, "the key file was touched");
    }
    fs::write(&path, &good).unwrap();
    scene.recovers();
}

#[test]
fn a_file_of_networks_that_others_can_read_is_refused_with_what_mends_it() {
    let Some(mut scene) = Scene::new() else { return };
    let file = scene.node.file("state/networks.redb");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    scene.refused(NOT_ALLOWED, &["networks.redb", &format!("`chmod 0600 {}`", file.display())]);
    fs::remove_file(&file).unwrap();
    scene.recovers();
}

#[test]
fn a_port_in_use_is_named() {
    let Some(mut scene) = Scene::new() else { return };
    for address in ["0.0.0.0", "[::]"] {
        let address: SocketAddr = format!("{address}:{PORT}").parse().unwrap();
        let held = scene.host.namespace.run(move || UdpSocket::bind(address)).unwrap().unwrap();
        scene.refused(FAILED, &["41641", "in use", "node.listen"]);
        drop(held);
    }
    scene.node.configure(&[], "");
    let listening = fs::read_to_string(scene.node.file("config.toml")).unwrap().replace("0.0.0.0", "192.0.2.77");
    scene.node.write_config(&listening);
    scene.refused(FAILED, &["192.0.2.77", "listen"]);
    scene.node.configure(&[], "");
    scene.recovers();
}

#[test]
fn a_taken_address_or_route_is_named() {
    let Some(mut scene) = Scene::new() else { return };
    let own = scene.node.v4;
    let taken = IpNet::V4(Ipv4Net::new_assert(own, 32));
    scene.host.interface.add_address(taken).unwrap();
    scene.refused(FAILED, &[&own.to_string(), "taken", "eth0"]);
    scene.host.interface.remove_address(taken).unwrap();

    let pool = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16));
    add_route(&scene.host.namespace, pool, scene.neighbour.ipv4.into()).unwrap();
    scene.refused(FAILED, &["10.100.0.0/16", "route", "eth0", "ipv4_pool"]);
    if has("ip") {
        let mut delete = Command::new("ip");
        delete.args(["route", "del", "10.100.0.0/16"]);
        assert!(run(&scene.host.namespace, delete, LIMIT).unwrap().status.success());
        scene.recovers();
    }
}

#[test]
fn a_taken_interface_name_is_explained() {
    let Some(scene) = Scene::new() else { return };
    veth((&scene.host.namespace, TUN), (&scene.neighbour.namespace, "other-end")).unwrap();
    check(&scene.node.cli(&["daemon"]), FAILED, &[TUN, "interface.name"]);
    assert_nothing_left(&scene.node);
}

#[test]
fn a_missing_tun_device_is_explained() {
    let Some(mut scene) = Scene::new() else { return };
    if has("unshare") && has("mount") {
        let daemon = scene.node.command(&["daemon"]);
        let mut hidden = Command::new("unshare");
        // A directory without the device in the place of the one with it.
        let script = "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\"";
        hidden.args(["--mount", "sh", "-c", script]).arg(daemon.get_program()).args(daemon.get_args());
        let finished = run(&scene.host.namespace, hidden, LIMIT).unwrap();
        check(&finished, FAILED, &["/dev/net/tun", "modprobe tun"]);
        scene.before.assert_still(&scene.host.namespace, "without /dev/net/tun");
        assert_nothing_left(&scene.node);
    }
    scene.recovers();
}

#[test]
fn without_privilege_the_daemon_says_what_it_needs() {
    if !geteuid().is_root() || !has("setpriv") {
        return;
    }
    let nobody =
        Command::new("setpriv").args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "true"]).status();
    if !nobody.unwrap().success() {
        eprintln!("SKIP: this user namespace knows one user only");
        return;
    }
    let Some(mut scene) = Scene::new() else { return };
    // Where anybody may execute it, wherever the build directory is.
    let program = scene.node.file("pqvpn");
    fs::copy(binary(), &program).unwrap();
    let open = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(scene.node.dir.path(), 0o755);
    open(&program, 0o755);
    open(&scene.node.file("config.toml"), 0o644);
    let as_nobody = |state: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(&program).arg("daemon");
        command.arg("--config").arg(scene.node.file("config.toml"));
        command.arg("--state").arg(scene.node.file(state)).arg("--socket").arg(scene.node.file("theirs/sock"));
        command.env("HOME", "/nonexistent");
        run(&scene.host.namespace, command, LIMIT).unwrap()
    };
    // Somebody else's key.
    check(&as_nobody("state"), NOT_ALLOWED, &["state"]);
    let theirs = scene.node.file("theirs");
    fs::create_dir(&theirs).unwrap();
    let id = nix::unistd::Uid::from_raw(NOBODY.parse().unwrap());
    nix::unistd::chown(&theirs, Some(id), None).unwrap();
    // Everything his own, and still no right to change the network.
    check(&as_nobody("theirs/state"), NOT_ALLOWED, &["CAP_NET_ADMIN", "root"]);
    scene.before.assert_still(&scene.host.namespace, "without privilege");
    assert!(!theirs.join("sock").exists() && !theirs.join("state/host-journal").exists());
    // A config nobody may read.
    open(&scene.node.file("config.toml"), 0o600);
    check(&as_nobody("theirs/state"), BAD_CONFIG, &["config.toml", "ermission denied"]);
    open(&theirs, 0o755);
    scene.recovers();
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() {
    let Some(mut scene) = Scene::new() else { return };
    scene.node.start_up();
    let during = HostState::of(&scene.host.namespace);
    // The same socket; then the same state directory under another socket, on another host.
    let same = scene.node.cli(&["daemon"]);
    check(&same, FAILED, &["another daemon", "--state", "--socket"]);
    let mut other = scene.node.command(&["daemon"]);
    other.arg("--socket").arg(scene.node.file("other-sock"));
    let arguments: Vec<_> = other.get_args().map(ToOwned::to_owned).collect();
    let first = arguments.iter().position(|argument| argument == "--socket").unwrap();
    let mut command = Command::new(other.get_program());
    command.args(&arguments[..first]).args(&arguments[first + 2..]);
    check(&run(&scene.neighbour.namespace, command, LIMIT).unwrap(), FAILED, &["another daemon", "--state"]);
    assert!(!scene.node.file("other-sock").exists());
    during.assert_still(&scene.host.namespace, "after a second daemon was refused");
    assert!(scene.node.status().peers.is_empty());
    scene.node.stop();
    scene.before.assert_still(&scene.host.namespace, "after the first daemon");
    // And with none there at all.
    check(&scene.node.cli(&["status"]), NO_DAEMON, &["no daemon", "pqvpn up"]);
}
