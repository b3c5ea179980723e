// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon's log: standard error or a file that cannot fill the disk, text or JSON, quiet unless asked.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use nix::fcntl::OFlag;
use pqvpn_node::config::{LogFormat, LogLevel};
use tracing_subscriber::{EnvFilter, fmt, fmt::writer::BoxMakeWriter};

use crate::failure::Failure;

/// A log file is moved to `NAME.1` at this size, so a log takes at most twice as much.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Libraries that report more at `info` than an operator cares about.
const NOISY: [&str; 9] =
    ["noq", "noq_proto", "noq_udp", "quinn", "quinn_proto", "quinn_udp", "rustls", "hyper", "netlink_proto"];

/// Sends the log where it shall go; none as `file` means standard error.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn init(level: LogLevel, format: LogFormat, file: Option<&Path>) -> Result<(), Failure> {
    let (writer, colour) = match file {
        Some(path) => {
            let log = CappedFile::open(path.to_owned(), MAX_FILE)
                .map_err(|error| Failure::file("the log file was not opened", path, &error))?;
            (BoxMakeWriter::new(Mutex::new(log)), false)
        }
        None => {
            let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            (BoxMakeWriter::new(io::stderr), !no_colour && io::stderr().is_terminal())
        }
    };
    let log = fmt().with_env_filter(filter(level)).with_writer(writer).with_ansi(colour);
    // Only a second call fails, and then the first one's log stands.
    let _first = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

fn filter(level: LogLevel) -> EnvFilter {
    let mut directives = level.name().to_owned();
    if matches!(level, LogLevel::Info | LogLevel::Debug) {
        directives.extend(NOISY.map(|library| format!(",{library}=warn")));
    }
    EnvFilter::new(directives)
}

/// A file that is exchanged for an empty one when it is full.
struct CappedFile {
    path: PathBuf,
    file: File,
    size: u64,
    cap: u64,
}

impl CappedFile {
    fn open(path: PathBuf, cap: u64) -> io::Result<Self> {
        let file = Self::open_append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, cap })
    }

    fn open_append(path: &Path) -> io::Result<File> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old)?;
        self.file = Self::open_append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for CappedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.cap {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_moves_aside_and_two_files_are_all_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = CappedFile::open(path.clone(), 10).unwrap();
        for line in ["aaaaaa\n", "bbbbbb\n", "cccccc\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "cccccc\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "bbbbbb\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_size_of_an_existing_log_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "123456789").unwrap();
        CappedFile::open(path.clone(), 10).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn libraries_are_quiet_at_info_but_not_at_trace() {
        assert!(filter(LogLevel::Info).to_string().contains("noq=warn"));
        assert_eq!(filter(LogLevel::Trace).to_string(), "trace");
        assert_eq!(filter(LogLevel::Off).to_string(), "off");
    }
}
