// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another user of the same machine gets at nothing of a daemon that runs, and nobody reads a secret in what it says.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use pqvpn_crypto::keystore::KdfParams;
use pqvpn_lab::{
    process::{Daemon, Finished, run},
    topology::internet,
};
use pqvpn_node::store::KeystoreFile;

use crate::{
    networks,
    rig::{LIMIT, Node, Outer, Pair, has, tail, usable},
};

/// A user without privilege on every system.
const NOBODY: &str = "65534";

/// Whether this process can become [`NOBODY`]; says so if not.
fn may_be_nobody() -> bool {
    if !usable() {
        return false;
    }
    let tried = Command::new("setpriv").args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "true"]).output();
    let may = tried.unwrap().status.success();
    if !may {
        eprintln!("SKIP: this user namespace knows one user only");
    }
    may
}

/// Runs a line of shell as [`NOBODY`] in the namespace of a node.
fn as_nobody(node: &Node, line: &str) -> Finished {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", "sh", "-c", line]);
    run(&node.namespace, command, LIMIT).unwrap()
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

#[test]
fn another_user_reads_no_file_and_no_memory_has_no_say_and_traces_nothing() {
    if !may_be_nobody() || !has("strace") {
        return;
    }
    let mut pair = Pair::met(Outer::V4);
    assert!(pair.a.cli(&["net", "create", "home"]).status.success());
    let (node, pid) = (&pair.a, pair.a.daemon().pid());
    // The folder around it is no part of the daemon's protection: it is a test's.
    open(node.dir.path(), 0o755);
    let program = node.file("pqvpn");
    fs::copy(crate::rig::binary(), &program).unwrap();
    open(&program, 0o755);
    let (program, sock) = (program.display(), node.file("sock").display().to_string());
    let files = files_under(&node.file("state"));
    assert!(files.iter().any(|file| file.ends_with("networks.redb")), "{files:?}");
    let mut refused: Vec<String> = files.iter().map(|file| format!("cat {}", file.display())).collect();
    refused.extend(
        [
            "ls {dir}/state",
            "touch {dir}/state/x",
            "cat {dir}/config.toml",
            "rm -f {sock} && test ! -e {sock}",
            "{program} --socket {sock} status",
            "{program} --socket {sock} down",
            "cat /proc/{pid}/mem",
            "cat /proc/{pid}/environ",
            "cat /proc/{pid}/maps",
            "cat /proc/{pid}/auxv",
            "cat /proc/{pid}/stack",
            "ls /proc/{pid}/fd/",
            "readlink /proc/{pid}/cwd",
            "readlink /proc/{pid}/root",
            "strace -p {pid} -o /dev/null",
            "kill -STOP {pid}",
            "prlimit --pid {pid} --core=unlimited",
        ]
        .map(|line| {
            line.replace("{dir}", &node.dir.path().display().to_string())
                .replace("{sock}", &sock)
                .replace("{program}", &program.to_string())
                .replace("{pid}", &pid.to_string())
        }),
    );
    for line in refused {
        let tried = as_nobody(node, &line);
        assert!(!tried.status.success(), "{line}: {}", tried.stdout);
        assert!(tried.stdout.is_empty(), "{line}: {}", tried.stdout);
    }
    // The same lines work for who may.
    assert!(as_nobody(node, &format!("test -x {program} && ls {}", node.dir.path().display())).status.success());
    node.meet(&pair.b);
    pair.a.stop();
}

/// Another process of the daemon's own user is no debugger of it, either: it has no capabilities, as the daemon's user.
#[test]
fn a_process_of_the_same_user_reads_no_memory() {
    if !may_be_nobody() || !has("strace") {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let pid = pair.a.daemon().pid();
    for line in [
        format!("cat /proc/{pid}/environ"),
        format!("cat /proc/{pid}/maps"),
        format!("dd if=/proc/{pid}/mem of=/dev/null count=1"),
        format!("strace -p {pid} -o /dev/null"),
    ] {
        let mut command = Command::new("setpriv");
        // Of the same user, with the capabilities the daemon itself has: more is none of ours to keep out.
        let kept = "+net_admin,+net_bind_service,+ipc_lock";
        command.args(["--bounding-set", &format!("-all,{kept}"), "--inh-caps", "-all", "--", "sh", "-c", &line]);
        let tried = run(&pair.a.namespace, command, LIMIT).unwrap();
        assert!(!tried.status.success(), "{line}: {}", tried.stdout);
        let why = tried.stderr.to_lowercase();
        assert!(why.contains("permi") || why.contains("denied"), "{line}: {why}");
    }
}

/// In a folder that others may write to, whatever lies at the names the daemon uses leads it nowhere.
#[test]
fn links_laid_in_the_folder_of_the_socket_lead_nowhere() {
    if !may_be_nobody() {
        return;
    }
    let node = Node::new(&pqvpn_lab::netns::Namespace::create("links").unwrap(), "a");
    open(node.dir.path(), 0o755);
    let victim = node.file("victim");
    for name in ["sock", "sock.lock", "pid"] {
        let folder = node.file("shared");
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(65_534), None).unwrap();
        fs::write(&victim, "precious").unwrap();
        let inode = fs::metadata(&victim).unwrap();
        symlink(&victim, folder.join(name)).unwrap();
        let mut command = Command::new(crate::rig::binary());
        command.arg("daemon").arg("--config").arg(node.file("config.toml")).arg("--state").arg(node.file("state"));
        command.arg("--socket").arg(folder.join("sock")).arg("--pid-file").arg(folder.join("pid"));
        let daemon = Daemon::spawn(&node.namespace, "daemon", command).unwrap();
        let ended = daemon.wait_until("ready or refused", LIMIT, || {
            (daemon.stderr().contains("ready") || daemon.exited().unwrap().is_some()).then_some(())
        });
        assert!(ended.is_ok(), "{name}: {}", tail(&daemon.stderr()));
        daemon.terminate(LIMIT).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
        assert_eq!(fs::metadata(&victim).unwrap().permissions(), inode.permissions(), "{name}");
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// The ways bytes are written in a text.
fn spellings(secret: &[u8]) -> Vec<String> {
    let listed: Vec<String> = secret.iter().map(u8::to_string).collect();
    vec![HEXLOWER.encode(secret), HEXUPPER.encode(secret), BASE64.encode(secret), listed.join(", ")]
}

#[test]
fn no_secret_is_in_the_arguments_the_environment_or_the_log_of_everything() {
    if !usable() {
        return;
    }
    let net = internet(2).unwrap();
    let [a, mut b] = [0, 1].map(|at| networks::node(&net.hosts[at], ["one", "two"][at], "[dht]\nenabled = false\n"));
    let log = a.file("log");
    let text = fs::read_to_string(a.file("config.toml")).unwrap();
    a.write_config(&(text + "[logging]\nfile = \"../log\"\n"));
    let daemon = Daemon::spawn(&a.namespace, "daemon", a.command(&["daemon", "--log-level", "trace"])).unwrap();
    daemon.wait_until("being ready", LIMIT, || fs::read_to_string(&log).ok()?.contains("ready").then_some(())).unwrap();
    b.start_up();
    networks::json(&a, &["net", "create", "home"]);
    let code = networks::invite(&a, &[]);
    networks::json(&b, &["join", &code]);
    networks::json(&b, &["ping", "one", "-c", "1", "-W", "10"]);

    let seed = KeystoreFile::new(&a.file("state"), KdfParams::SMALL).load(None).unwrap();
    // Either half of it, and a part of one: whoever prints a half prints these.
    let mut secrets: Vec<String> = seed.expose().chunks(16).flat_map(spellings).collect();
    secrets.push(code.rsplit('-').next().unwrap().to_owned());
    let read = |name: &str| fs::read(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let said =
        [fs::read(&log).unwrap(), read("cmdline"), read("environ"), daemon.stderr().into(), daemon.stdout().into()];
    let said: Vec<String> = said.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert!(said[0].contains("TRACE"), "everything was logged");
    for (place, said) in ["log", "arguments", "environment", "stderr", "stdout"].iter().zip(&said) {
        assert!(!secrets.iter().any(|secret| said.contains(secret)), "a secret is in the {place}");
    }
    daemon.terminate(LIMIT).unwrap();
}
