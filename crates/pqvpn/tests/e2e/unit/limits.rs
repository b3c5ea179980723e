// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a unit file says, and how a thread gets under it. The processes it starts are under it as well.

use nix::sys::resource::{Resource, setrlimit};
use rustix::{
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::filters;

/// Keys of `[Service]` that the test sets itself, or that say nothing about limits.
const KNOWN: [&str; 43] = [
    "Type",
    "NotifyAccess",
    "ExecStart",
    "ExecStopPost",
    "Restart",
    "RestartSec",
    "TimeoutStopSec",
    "WatchdogSec",
    "User",
    "Group",
    "UMask",
    "StateDirectory",
    "StateDirectoryMode",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "NoNewPrivileges",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateMounts",
    "DevicePolicy",
    "DeviceAllow",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectProc",
    // Without the right to, a service changes neither; the others are the manager's alone to set.
    "ProtectClock",
    "ProtectHostname",
    "RemoveIPC",
    "KeyringMode",
    "TasksMax",
    "MemoryMax",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RestrictAddressFamilies",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
];
/// Limits that are lowered, by the options of prlimit(1) for one program.
const LIMITS: [(&str, &str); 2] = [("LimitCORE", "--core"), ("LimitNOFILE", "--nofile")];

/// `LimitNICE=-10` as the kernel has it.
pub(super) const NICE_LIMIT: u64 = 30;

/// The settings of `[Service]`, in their order.
#[derive(Debug, Clone)]
pub(super) struct Unit(Vec<(String, String)>);

impl Unit {
    pub(super) fn read(text: &str) -> Self {
        let service = text.split_once("[Service]").unwrap().1.split("\n[").next().unwrap();
        let lines = service.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let unit = Self(
            lines
                .map(|line| line.split_once('=').unwrap())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        );
        for (key, _) in &unit.0 {
            let known = KNOWN.contains(&key.as_str())
                || ["SystemCallFilter", "LimitMEMLOCK", "LimitNICE", "Environment"].contains(&key.as_str())
                || LIMITS.iter().any(|(limit, _)| limit == key);
            assert!(known, "this test does not know what {key} means");
        }
        unit
    }

    /// Every value of a key.
    pub(super) fn all<'u>(&'u self, key: &'u str) -> impl Iterator<Item = &'u str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn one<'u>(&'u self, key: &'u str) -> &'u str {
        self.all(key).next().unwrap_or_else(|| panic!("the unit has no {key}"))
    }

    pub(super) fn is(&self, key: &str, value: &str) -> bool {
        self.all(key).any(|is| is == value)
    }

    pub(super) fn replace(&mut self, key: &str, value: &str) {
        self.0.iter_mut().filter(|(name, _)| name == key).for_each(|(_, is)| value.clone_into(is));
    }
}

/// A command line with the limits that are of a process.
pub(super) fn limited(unit: &Unit, words: impl IntoIterator<Item = String>) -> Vec<String> {
    let option = |(key, option): &(&str, &str)| format!("{option}={0}:{0}", unit.one(key));
    let limits = ["env".to_owned()].into_iter().chain(unit.all("Environment").map(str::to_owned));
    let limits = limits.chain(["prlimit".to_owned()]).chain(LIMITS.iter().map(option));
    limits.chain(["--".to_owned()]).chain(words).collect()
}

/// Puts the calling thread under the limits of a unit, as the user `user`; its mounts are set already.
pub(super) fn apply(unit: &Unit, user: u32) {
    assert_eq!(unit.one("LimitMEMLOCK"), "infinity");
    // Of the whole test process, which is raised by that. Root of a container may not.
    let _not_in_a_container = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);
    assert_eq!(unit.one("LimitNICE"), "-10");
    let _not_there_either = setrlimit(Resource::RLIMIT_NICE, NICE_LIMIT, NICE_LIMIT);
    let bounding = set_of(unit.one("CapabilityBoundingSet"));
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if capability_is_in_bounding_set(one).is_ok_and(|there| there) && !bounding.contains(one) {
            remove_capability_from_bounding_set(one).unwrap();
        }
    }
    set_keep_capabilities(true).unwrap();
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    let ambient = set_of(unit.one("AmbientCapabilities")) & bounding;
    set_capabilities(None, CapabilitySets { effective: ambient, permitted: ambient, inheritable: ambient }).unwrap();
    for one in ambient.iter() {
        configure_capability_in_ambient_set(one, true).unwrap();
    }
    assert!(unit.is("NoNewPrivileges", "yes"));
    set_no_new_privs(true).unwrap();
    filters::apply(unit);
}

fn set_of(names: &str) -> CapabilitySet {
    let named = names.split_whitespace().map(|name| CapabilitySet::from_name(name.trim_start_matches("CAP_")));
    named.fold(CapabilitySet::empty(), |all, one| all | one.unwrap())
}
