// SPDX-License-Identifier: MIT OR Apache-2.0
//! A control group (version 1) that limits a daemon's memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::topology::Host;

/// Where groups of version 1 limit memory.
const ROOT: &str = "/sys/fs/cgroup/memory";
/// A group is busy for a moment after its last process has ended.
const AGAIN: Duration = Duration::from_millis(20);
const TRIES: usize = 100;

/// The group; it goes with this value.
pub(super) struct Group {
    path: PathBuf,
    /// Where processes of the lab are otherwise.
    home: PathBuf,
}

impl Group {
    /// What is started on the host from now on is in a group of its own.
    pub(super) fn enter(host: &Host, bytes: u64) -> anyhow::Result<Self> {
        let home = home(&fs::read_to_string("/proc/self/cgroup")?).context("no control groups of version 1")?;
        let path = home.join(format!("pqvpn-lab-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("no group in {}; it needs root", home.display()))?;
        let group = Self { path, home };
        fs::write(group.path.join("memory.limit_in_bytes"), bytes.to_string()).context("limiting memory")?;
        move_to(host, group.path.join("tasks"))?;
        Ok(group)
    }

    /// What is started on the host from now on is in no group.
    pub(super) fn leave(&self, host: &Host) -> anyhow::Result<()> {
        move_to(host, self.home.join("tasks"))
    }

    /// A number the kernel keeps.
    pub(super) fn read(&self, file: &str) -> anyhow::Result<u64> {
        Ok(fs::read_to_string(self.path.join(format!("memory.{file}")))?.trim().parse()?)
    }
}

/// The folder of the memory group that cgroups(7) says a process is in.
fn home(groups: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path)?;
    let own = Path::new(ROOT).join(path.trim_start_matches('/'));
    // In a container the path may be the host's.
    Some(if own.is_dir() { own } else { ROOT.into() })
}

/// Moves the thread that starts the host's processes.
fn move_to(host: &Host, tasks: PathBuf) -> anyhow::Result<()> {
    host.namespace.run(move || fs::write(tasks, "0"))?.context("joining a control group")
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(AGAIN);
        }
    }
}
