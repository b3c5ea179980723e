// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seccomp filters systemd makes of a unit, made by the test: from systemd's own sets of system calls.

use std::{collections::BTreeSet, env::consts::ARCH, process::Command};

use nix::libc;
use seccompiler::{BpfProgram, apply_filter, compile_from_json};
use serde_json::{Value, json};

use super::limits::Unit;

/// Puts the calling thread under the filters; the one that lets nothing further be filtered comes last.
pub(super) fn apply(unit: &Unit) {
    assert!(unit.is("SystemCallArchitectures", "native") && unit.is("SystemCallErrorNumber", "EPERM"));
    let families: Vec<Value> =
        unit.one("RestrictAddressFamilies").split(' ').map(|name| condition(0, json!("ne"), family(name))).collect();
    install(denied(libc::EAFNOSUPPORT, vec![rule("socket", families)]));
    for key in
        ["MemoryDenyWriteExecute", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"]
    {
        assert!(unit.is(key, "yes"), "{key}");
    }
    install(denied(libc::EPERM, executable_memory()));
    install(denied(libc::EPERM, [namespaces(), suid(), personality()].concat()));
    // Its flags are in memory; whoever gets this answer takes the older call.
    install(denied(libc::ENOSYS, vec![json!({"syscall": "clone3"})]));
    let allowed: Vec<Value> = allowed(unit).iter().map(|name| json!({"syscall": name})).collect();
    install(json!({"mismatch_action": {"errno": libc::EPERM}, "match_action": "allow", "filter": allowed}));
}

fn family(name: &str) -> i32 {
    match name {
        "AF_UNIX" => libc::AF_UNIX,
        "AF_INET" => libc::AF_INET,
        "AF_INET6" => libc::AF_INET6,
        "AF_NETLINK" => libc::AF_NETLINK,
        other => panic!("this test does not know {other}"),
    }
}

fn executable_memory() -> Vec<Value> {
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    let masked = |index, bits: i32| vec![condition(index, json!({"masked_eq": bits}), bits)];
    vec![
        rule("mmap", masked(2, both)),
        rule("mprotect", masked(2, libc::PROT_EXEC)),
        rule("pkey_mprotect", masked(2, libc::PROT_EXEC)),
        rule("shmat", masked(2, libc::SHM_EXEC)),
    ]
}

fn namespaces() -> Vec<Value> {
    let kinds = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
    ];
    let made =
        |call: &'static str| kinds.map(move |bit| rule(call, vec![condition(0, json!({"masked_eq": bit}), bit)]));
    [&made("clone")[..], &made("unshare"), &[json!({"syscall": "setns"})]].concat()
}

fn suid() -> Vec<Value> {
    let bits = [0o4000, 0o2000];
    let calls = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2)];
    let rules = calls
        .iter()
        .flat_map(|(call, index)| bits.map(|bit| rule(call, vec![condition(*index, json!({"masked_eq": bit}), bit)])));
    rules.collect()
}

fn personality() -> Vec<Value> {
    vec![rule("personality", vec![condition(0, json!("ne"), 0), condition(0, json!("ne"), -1)])]
}

fn condition(index: u8, op: Value, value: i32) -> Value {
    json!({"index": index, "type": "dword", "op": op, "val": value.cast_unsigned()})
}

fn rule(call: &str, conditions: Vec<Value>) -> Value {
    json!({"syscall": call, "args": conditions})
}

fn denied(error: i32, rules: Vec<Value>) -> Value {
    json!({"mismatch_action": "allow", "match_action": {"errno": error}, "filter": rules})
}

/// The calls of `SystemCallFilter=`, line after line: a later `~` takes away.
fn allowed(unit: &Unit) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in unit.all("SystemCallFilter") {
        let (names, takes_away) = line.strip_prefix('~').map_or((line, false), |names| (names, true));
        for call in names.split_whitespace().flat_map(calls) {
            if takes_away {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    // systemd always lets these: without them nothing could be started.
    allowed.extend(calls("@default"));
    allowed.extend(["execve".to_owned(), "rt_sigreturn".to_owned(), "exit".to_owned(), "exit_group".to_owned()]);
    allowed
}

/// A call, or those of one of systemd's sets.
fn calls(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let listed = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]).output().unwrap();
    assert!(listed.status.success(), "{name}: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    let entries = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    entries.flat_map(calls).collect()
}

fn install(filter: Value) {
    apply_filter(&compiled(filter)).unwrap();
}

/// Compiles it without the calls this architecture does not have.
fn compiled(mut filter: Value) -> BpfProgram {
    loop {
        let text = json!({"unit": filter}).to_string();
        let error = match compile_from_json(text.as_bytes(), ARCH.try_into().unwrap()) {
            Ok(mut compiled) => return compiled.remove("unit").unwrap(),
            Err(error) => error.to_string(),
        };
        let rules = filter["filter"].as_array_mut().unwrap();
        let before = rules.len();
        rules.retain(|rule| !names(&error, rule));
        assert!(rules.len() < before, "{error}");
    }
}

fn names(error: &str, rule: &Value) -> bool {
    error.split(|char: char| !char.is_alphanumeric() && char != '_').any(|word| rule["syscall"] == word)
}
