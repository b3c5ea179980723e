// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory this process may have: what it keeps for strangers is a share of that.

use std::fs;
use std::path::Path;

/// Where the kernel says to which groups a process belongs.
const GROUPS: &str = "/proc/self/cgroup";
/// Where groups are found.
const ROOT: &str = "/sys/fs/cgroup";

/// The least of what the machine has and what control groups allow; `None` where nobody says.
pub(crate) fn limit() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").as_deref().and_then(total);
    let groups = read(GROUPS).unwrap_or_default();
    of_groups(&groups, |path| read(Path::new(ROOT).join(path).to_str()?)).into_iter().chain(machine).min()
}

/// `MemTotal` of proc_meminfo(5) in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the groups, and of those above them, of which cgroups(7) tells.
fn of_groups(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("", path, "memory.max")),
            _ if controllers.split(',').any(|name| name == "memory") => Some(("memory", path, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    let limits = files.flat_map(|(mount, path, file)| {
        // In a container the path may be that of the host, and what is seen is the root of it.
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        above.map(move |group| Path::new(mount).join(group).join(file)).collect::<Vec<_>>()
    });
    limits.filter_map(|file| read(file.to_str()?)?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        of_groups(groups, read)
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let files = [("system.slice/pqvpn.service/memory.max", "max\n"), ("system.slice/memory.max", "134217728\n")];
        assert_eq!(of("0::/system.slice/pqvpn.service\n", &files), Some(128 << 20));
        assert_eq!(of("0::/elsewhere\n", &files), None);
    }

    #[test]
    fn groups_of_the_first_version_are_read_too() {
        let files = [
            ("memory/a/b/memory.limit_in_bytes", "67108864\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/a/b/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(of("5:cpu:/a/b\n4:hugetlb,memory:/a/b\n0::/\n", &files), Some(64 << 20));
        assert_eq!(of("4:memory:/\n", &files), Some(9_223_372_036_854_771_712));
    }

    #[test]
    fn nonsense_is_no_limit() {
        assert_eq!(of("memory\n:\n0::\n", &[("memory.max", "a lot")]), None);
        assert_eq!(total("MemFree: 1 kB"), None);
        assert_eq!(total("MemTotal:       2048 kB\n"), Some(2 << 20));
    }
}
