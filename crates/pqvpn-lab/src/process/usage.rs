// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU time and memory of a process, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// One clock tick of /proc/pid/stat: USER_HZ is 100 on every architecture in use (proc_pid_stat(5)).
const TICK: Duration = Duration::from_millis(10);

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system CPU time of all its threads.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Of it, what is no part of a file: the program's own code comes and goes with what else the machine runs.
    pub anonymous: u64,
    /// Most resident memory so far, in bytes.
    pub peak_rss: u64,
    /// How many threads it has.
    pub threads: u64,
}

impl Usage {
    /// Reads it for a process id.
    ///
    /// # Errors
    /// When the process is gone or a file is not as proc(5) says.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc format"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the program's name in brackets and may hold blanks and brackets itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u32>().ok()?.checked_add(fields.get(12)?.parse().ok()?)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        // Without Vm lines: a process that has ended but was not reaped.
        let kib = |name| field(name).unwrap_or(0) * 1024;
        let (rss, anonymous, peak_rss) = (kib("VmRSS:"), kib("RssAnon:"), kib("VmHWM:"));
        Some(Self { cpu: TICK * ticks, rss, anonymous, peak_rss, threads: field("Threads:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_proc_5_describes() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 10 0 0 0 123 77 0 0 20 0 3 0 99 1000 50 18446744073709551615";
        let status = "Name:\ta ) b\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\nThreads:\t3\n";
        let usage = Usage::parse(stat, status).unwrap();
        assert_eq!(
            usage,
            Usage { cpu: Duration::from_secs(2), rss: 1 << 20, anonymous: 512 << 10, peak_rss: 2 << 20, threads: 3 }
        );
        assert_eq!(Usage::parse("7 (x) S", status), None);
        assert_eq!(Usage::parse("", ""), None);
    }

    #[test]
    fn reads_this_process() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss > 0 && usage.peak_rss >= usage.rss && usage.threads >= 1);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
