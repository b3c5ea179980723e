// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces are separate, hold what is made in them, and end.

use super::*;
use std::io::Write;
use std::net::UdpSocket;

/// A namespace, or a loud skip.
pub(crate) fn namespace(name: &str) -> Option<Namespace> {
    match Namespace::create(name) {
        Ok(namespace) => Some(namespace),
        Err(NetnsError::Forbidden(error)) => {
            _ = writeln!(io::stderr(), "SKIP: no privilege to make a network namespace: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn interfaces() -> Vec<String> {
    let dev = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    dev.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn a_new_namespace_has_only_a_loopback_that_works() {
    let Some(ns) = namespace("fresh") else { return };
    assert!(ns.run(interfaces).unwrap().contains(&"lo".to_owned()));
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let socket = ns.run(move || UdpSocket::bind(address)).unwrap().unwrap();
        let target = socket.local_addr().unwrap();
        assert_eq!(socket.send_to(b"x", target).unwrap(), 1);
    }
}

#[test]
fn the_same_port_is_free_in_every_namespace() {
    let (Some(one), Some(two)) = (namespace("one"), namespace("two")) else {
        return;
    };
    let bind = || UdpSocket::bind("127.0.0.1:40404");
    let (first, second) = (one.run(bind).unwrap(), two.run(bind).unwrap());
    assert!(first.is_ok() && second.is_ok());
    assert!(one.run(bind).unwrap().is_err());
}

#[test]
fn processes_and_threads_start_inside() {
    let Some(ns) = namespace("inside") else { return };
    let own = ns.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(own, fs::read_link("/proc/thread-self/ns/net").unwrap());
    let thread = ns.thread("worker", || fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(thread.join().unwrap(), own);
    let mut command = Command::new("readlink");
    command.arg("/proc/self/ns/net").stdout(std::process::Stdio::piped());
    let output = ns.spawn(command).unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), own.to_str().unwrap());
}

#[test]
fn a_panic_inside_reaches_the_caller_and_the_namespace_goes_on() {
    let Some(ns) = namespace("panics") else { return };
    let inner = ns.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| inner.run(|| panic!("expected in this test"))));
    assert!(outcome.is_err());
    assert_eq!(ns.run(|| 7).unwrap(), 7);
}

#[test]
fn nested_runs_and_dropping_inside_do_not_hang() {
    let Some(ns) = namespace("nested") else { return };
    let again = ns.clone();
    assert_eq!(ns.run(move || again.run(|| 5).unwrap()).unwrap(), 5);
    let (last, done) = (ns.clone(), mpsc::sync_channel(1));
    drop(ns);
    let (tx, rx) = done;
    let handle = last.clone();
    last.run(move || {
        drop(handle);
        tx.send(()).unwrap();
    })
    .unwrap();
    drop(last);
    rx.recv().unwrap();
}

#[test]
fn sysctls_are_the_namespaces_own() {
    let Some(ns) = namespace("sysctl") else { return };
    let path = "/proc/sys/net/ipv4/ip_forward";
    ns.sysctl("net.ipv4.ip_forward", "1").unwrap();
    assert_eq!(ns.run(move || fs::read_to_string(path).unwrap()).unwrap().trim(), "1");
    assert!(matches!(ns.sysctl("net.no.such", "1"), Err(NetnsError::Proc { .. })));
}

#[test]
fn a_user_namespace_is_refused_once_threads_run() {
    // The test harness itself has threads.
    assert!(matches!(enter_user_namespace(), Err(NetnsError::Threads(2..))));
}

#[test]
fn a_missing_program_is_named() {
    let Some(ns) = namespace("missing") else { return };
    let error = ns.spawn(Command::new("/no/such/program")).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}
