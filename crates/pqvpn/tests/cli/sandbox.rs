// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of its own for one test, and runs of the binary that know no other place.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A user without privilege on every system.
pub(crate) const NOBODY: u32 = 65534;

/// Longer than any run takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Sandbox {
    dir: TempDir,
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With what serves a control socket in it.
    pub(crate) fn serving() -> (Self, Runtime) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        (Self::new(), runtime)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn keystore(&self) -> PathBuf {
        self.path("state/keystore")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/s")
    }

    /// Writes a file with mode 0600.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        chmod(&path, 0o600);
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pqvpn"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PQVPN_STATE", self.path("state"))
            .env("PQVPN_SOCKET", self.socket())
            .env("XDG_CONFIG_HOME", self.path("config-home"))
            .args(arguments)
            .stdin(Stdio::null());
        if fs::exists(self.path("config.toml")).unwrap() {
            command.env("PQVPN_CONFIG", self.path("config.toml"));
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Runs the binary as a user without privilege; none when this test itself has none to give up.
    pub(crate) fn run_as_nobody(&self, arguments: &[&str]) -> Option<Run> {
        self.as_nobody(&self.command(arguments)).map(|mut command| Run::of(&mut command))
    }

    /// The same command, as a user without privilege.
    pub(crate) fn as_nobody(&self, original: &Command) -> Option<Command> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        // The build directory may be closed to others.
        let binary = self.path("pqvpn");
        if !binary.exists() {
            fs::copy(env!("CARGO_BIN_EXE_pqvpn"), &binary).unwrap();
            chmod(&binary, 0o755);
            chmod(self.dir.path(), 0o755);
        }
        let mut command = Command::new(binary);
        command.env_clear().envs(original.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.args(original.get_args()).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        Some(command)
    }
}

impl Run {
    /// Runs to the end; a run that has none fails the test.
    pub(crate) fn of(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A copy of the program is busy while a child that another test's thread forked has not let go of it.
        let spawned = (0..1000).map(|_| command.spawn()).find(|spawned| {
            let busy = spawned.as_ref().is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy);
            if busy {
                thread::yield_now();
            }
            !busy
        });
        let child = spawned.expect("a program that is not busy for ever").unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(LIMIT) else {
            kill(pid, Signal::SIGKILL).unwrap();
            panic!("{command:?} did not end");
        };
        let Output { status, stdout, stderr } = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The one object on standard output.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Exit code as given, and one line each for what, why and what to try.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, why: &str) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [.., what, reason, hint] = lines[..] else { panic!("{}", self.stderr) };
        assert!(what.starts_with("error: "), "{}", self.stderr);
        assert!(reason.starts_with("  why: ") && reason.contains(why), "{}", self.stderr);
        assert!(hint.starts_with("  try: ") && hint.len() > 10, "{}", self.stderr);
        self
    }
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}
