// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon that runs out of descriptors or memory: what is there goes on, what is new waits or is refused, nothing spins,
//! and all is well once there is room again.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use pqvpn_api::model::HealthLevel;
use pqvpn_lab::{
    process::{Daemon, run},
    topology::lan,
};

use crate::{
    rig::{LIMIT, Node, Outer, Pair, has, poll, tail, usable},
    traffic::{Numbered, tcp_transfer},
};

/// Descriptors a daemon is given where they are few.
const FEW: u64 = 72;
/// Of them, those that something else holds.
const HELD: u64 = 28;
/// How long a daemon without descriptors is watched.
const WATCHED: Duration = Duration::from_secs(3);
/// Share of a processor that it may use meanwhile; a loop that spins uses all of it.
const BUSY: f64 = 0.5;
/// Sessions that are begun and ended to see what stays behind.
const SESSIONS: usize = 50;

/// The descriptors of a process.
fn descriptors(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Lets a process open no more than it has open, or `many` in all.
fn limit(node: &Node, many: Option<u64>) {
    let pid = node.daemon().pid();
    let open = descriptors(pid);
    let first_free = (0..).find(|number| !open.contains(number)).unwrap();
    let soft = many.unwrap_or(first_free);
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
    let set = run(&node.namespace, command, LIMIT).unwrap();
    assert!(set.status.success(), "{}", set.stderr);
}

/// A question for the daemon's own name, and whether it was answered.
fn asks_for_a_name(node: &Node) -> bool {
    let server = SocketAddr::new(node.v4.into(), 53);
    let query = [&[0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1][..], b"a\x05pqvpn\0", &[0, 1, 0, 1]].concat();
    let answer = node.namespace.run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(LIMIT / 10))?;
        socket.send_to(&query, server)?;
        let mut answer = [0; 512];
        socket.recv(&mut answer)
    });
    answer.unwrap().is_ok()
}

#[test]
fn a_daemon_without_a_free_descriptor_goes_on_and_does_not_spin() {
    if !usable() || !has("prlimit") {
        return;
    }
    let (_switch, hosts) = lan(&["a", "b", "c"]).unwrap();
    let mut nodes: Vec<Node> = hosts.iter().map(|host| Node::new(&host.namespace, host.namespace.name())).collect();
    let lines: Vec<_> =
        nodes.iter().zip(&hosts).map(|(node, host)| node.as_peer(Some(Outer::V4.endpoint(host)))).collect();
    nodes[1].configure(&[lines[0].clone(), lines[2].clone()], "[relay]\nenabled = true\n");
    for node in [0, 2] {
        nodes[node].configure(&lines[1..2], "");
    }
    for node in &mut nodes {
        node.start_up();
    }
    let [a, b, c] = nodes.as_slice() else { panic!("three nodes") };
    a.meet(b);
    // A node in a network answers names.
    let made = b.cli(&["net", "create", "home"]);
    assert!(made.status.success(), "{}", made.stderr);
    b.wait("names", || asks_for_a_name(b).then_some(()));
    let carrier = SocketAddr::new(IpAddr::V4(hosts[1].ipv4), 443);
    let connects = move || TcpStream::connect_timeout(&carrier, LIMIT);
    b.wait("the carrier's port", || a.namespace.run(connects).unwrap().ok());
    let (made, open) = (b.sessions_made(), descriptors(b.daemon().pid()).len());

    limit(b, None);
    let numbered = Numbered::start(&a.namespace, &b.namespace, b.v4.into(), Duration::from_millis(5), 200);
    // Callers at every door that takes connections; none can be let in.
    let names = SocketAddr::new(b.v4.into(), 53);
    let strangers: Vec<_> = (0..3).map(|_| a.namespace.run(connects).unwrap().unwrap()).collect();
    let asking: Vec<_> =
        (0..3).map(|_| b.namespace.run(move || TcpStream::connect_timeout(&names, LIMIT)).unwrap().unwrap()).collect();
    let calling: Vec<_> = (0..3).map(|_| UnixStream::connect(b.file("sock")).unwrap()).collect();
    let (before, begun) = (b.daemon().usage().unwrap(), Instant::now());
    thread::sleep(WATCHED);
    let used = b.daemon().usage().unwrap().cpu - before.cpu;
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    eprintln!("FIGURE no_descriptor_cpu_share={share:.3} with {} callers waiting, {open} open", 9);
    assert!(share < BUSY, "it spins: {share}");
    assert!(asks_for_a_name(b), "names over UDP need no descriptor");
    // The tunnel and its keys go on, and a session needs no descriptor of its own.
    a.rekey(b).unwrap();
    a.wait("a step", || (a.peer(b).counts.rekeys > 0).then_some(()));
    assert!(c.ping(b).is_ok(), "{}", tail(&b.daemon().stderr()));
    tcp_transfer(&a.namespace, &b.namespace, b.v4.into(), 1 << 20);
    let tally = numbered.finish();
    assert!(tally.lost_there() == 0 && tally.lost_back() == 0, "{} lost", tally.lost_there() + tally.lost_back());

    limit(b, Some(1024));
    let status = poll("the control socket", || b.ask(async |client| client.status().await).ok());
    assert!(status.health.iter().all(|item| item.level != HealthLevel::Error), "{:?}", status.health);
    // Those of the wait are let in and gone; the one of `c` is new.
    drop((strangers, asking, calling));
    assert_eq!(b.sessions_made(), made + 1);
    assert!(!b.daemon().stderr().contains("panicked"), "{}", tail(&b.daemon().stderr()));
}

#[test]
fn a_daemon_with_few_descriptors_carries_a_tunnel() {
    if !usable() || !has("bash") {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    pair.a.start_up();
    let daemon = pair.b.command(&["daemon", "--log-level", "debug"]);
    let last = 9 + HELD;
    let script = format!("for i in {{10..{last}}}; do eval \"exec $i</dev/null\"; done; ulimit -n {FEW}; exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(daemon.get_program()).args(daemon.get_args());
    let daemon = Daemon::spawn(&pair.b.namespace, "few", command).unwrap();
    let said = |daemon: &Daemon| tail(&daemon.stderr());
    daemon.wait_for_line("ready", LIMIT).unwrap_or_else(|error| panic!("{error} {}", said(&daemon)));
    let ping = pair.a.ping(&pair.b);
    assert!(ping.is_ok(), "{ping:?} {}", said(&daemon));
    tcp_transfer(&pair.a.namespace, &pair.b.namespace, pair.b.v4.into(), 1 << 20);
    let open = descriptors(daemon.pid());
    eprintln!("FIGURE descriptors={} of {FEW}, {HELD} held by others", open.len());
    assert!(pair.b.ask(async |client| client.status().await).is_ok(), "{}", said(&daemon));
    let finished = daemon.terminate(LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[test]
fn fifty_sessions_leave_no_task_thread_or_descriptor_behind() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let again = || {
        for (node, _) in pair.both() {
            node.ask(async |client| client.down().await).unwrap();
        }
        for (node, _) in pair.both() {
            node.ask(async |client| client.up().await).unwrap();
        }
        a.meet(b);
    };
    // What is made once, like a thread for blocking work, is there after the first few.
    (0..5).for_each(|_| again());
    let look = |node: &Node| {
        let (pid, tasks) = (node.daemon().pid(), node.status().tasks);
        (tasks, node.daemon().usage().unwrap().threads, descriptors(pid).len())
    };
    let settled = |node: &Node| {
        let mut last = look(node);
        node.wait("what it has to stay the same", || {
            thread::sleep(Duration::from_millis(500));
            let now = look(node);
            (std::mem::replace(&mut last, now) == now).then_some(now)
        })
    };
    let before = [settled(a), settled(b)];
    (0..SESSIONS).for_each(|_| again());
    for (node, before) in [a, b].into_iter().zip(before) {
        // Some more or less come with the moment, like blocking threads, which end after ten idle seconds; one of each session
        // would be ten times as many.
        let more = SESSIONS / 10;
        let most = |now: (usize, u64, usize)| {
            now.0 <= before.0 + more && now.1 <= before.1 + more as u64 && now.2 <= before.2 + more
        };
        let now = node.wait("what fifty sessions used to be gone", || Some(settled(node)).filter(|now| most(*now)));
        eprintln!(
            "FIGURE after_{SESSIONS}_sessions tasks, threads, descriptors of {}: {before:?} -> {now:?}",
            node.name
        );
    }
    assert!(a.sessions_made() > SESSIONS);
}
