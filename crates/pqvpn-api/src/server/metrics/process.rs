// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the process, under the names every exporter gives them.

use std::fs;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use super::{Figures, Labels, number, size};
use crate::model::MetricKind;

pub(super) fn tell(figures: &mut Figures) {
    if let Some(bytes) = resident() {
        figures.gauge("process_resident_memory_bytes", "Resident memory.", number(bytes));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the look itself.
        figures.gauge("process_open_fds", "Open file descriptors.", size(open.count().saturating_sub(1)));
    }
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let spent = (usage.user_time() + usage.system_time()).num_milliseconds();
        let seconds = number(u64::try_from(spent).unwrap_or(0)) / 1000.0;
        let (name, help) = ("process_cpu_seconds_total", "Processor time spent, of user and system.");
        figures.family(MetricKind::Counter, name, help, [(Labels::new(), seconds)]);
    }
}

/// Resident memory in bytes.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
