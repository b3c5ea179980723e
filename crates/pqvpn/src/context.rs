// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where this run finds configuration, state and socket: options first, then the file, then the defaults.

use std::{
    env,
    path::{Path, PathBuf, absolute},
};

use nix::unistd::geteuid;
use pqvpn_api::client::Client;
use pqvpn_node::config::{Config, LogLevel, Paths};

use crate::{
    cli::{Globals, Level},
    failure::Failure,
    output::Output,
};

/// The global options, resolved.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    /// `--log-level`, when given.
    pub(crate) log_level: Option<LogLevel>,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    socket: Option<PathBuf>,
    defaults: Option<Paths>,
}

impl Context {
    pub(crate) fn new(globals: &Globals) -> Self {
        Self {
            output: Output::new(globals.json, globals.quiet),
            log_level: globals.log_level.map(LogLevel::from),
            config: globals.config.as_deref().map(absolute_path),
            state: globals.state.as_deref().map(absolute_path),
            socket: globals.socket.as_deref().map(absolute_path),
            defaults: Paths::defaults(geteuid().is_root(), |name| env::var_os(name)),
        }
    }

    /// The configuration file in use.
    pub(crate) fn config_path(&self) -> Result<PathBuf, Failure> {
        self.config.clone().or_else(|| self.defaults.as_ref().map(|paths| paths.config.clone())).ok_or_else(homeless)
    }

    /// The configuration; the defaults when there is no file and none was named.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let Ok(path) = self.config_path() else {
            return Ok(Config::default());
        };
        match Config::load(&path) {
            Err(error) if error.is_not_found() && self.config.is_none() => Ok(Config::default()),
            loaded => Ok(loaded?),
        }
    }

    /// As [`Self::config`], with the defaults also when the file named does not exist yet: its author needs the PeerID.
    pub(crate) fn config_if_any(&self) -> Result<Config, Failure> {
        match self.config_path() {
            Ok(path) if self.config.is_some() && !path.exists() => {
                self.output.remark(&format!("{} does not exist yet", path.display()));
                Ok(Config::default())
            }
            Ok(_) | Err(_) => self.config(),
        }
    }

    /// The state directory: `--state`, else `node.state_dir`, else the default.
    pub(crate) fn state_dir(&self, config: &Config) -> Result<PathBuf, Failure> {
        self.state
            .clone()
            .or_else(|| config.node.state_dir.as_deref().map(absolute_path))
            .or_else(|| self.defaults.as_ref().map(|paths| paths.state_dir.clone()))
            .ok_or_else(homeless)
    }

    /// The settings as a daemon of this run follows them: the options count more than the file. No passwords.
    pub(crate) fn in_force(&self, config: &Config, state_dir: &Path) -> Config {
        let mut config = config.clone();
        config.node.proxy = config.node.proxy.shown();
        config.node.state_dir = Some(state_dir.to_owned());
        config.logging.level = self.log_level.unwrap_or(config.logging.level);
        config
    }

    /// The socket a daemon of this run listens at.
    pub(crate) fn own_socket(&self) -> Result<PathBuf, Failure> {
        self.socket.clone().or_else(|| self.defaults.as_ref().map(|paths| paths.socket.clone())).ok_or_else(homeless)
    }

    /// Whether a daemon of this user listens there unless told otherwise.
    pub(crate) fn is_default_socket(&self, path: &Path) -> bool {
        self.defaults.as_ref().is_some_and(|paths| paths.socket == path)
    }

    /// A client of the daemon: the user's own one, else the system's.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let own = self.own_socket()?;
        let system = Paths::system().socket;
        // Whoever may not look is to be told so, and not that there is no daemon.
        let maybe = |socket: &Path| !matches!(socket.try_exists(), Ok(false));
        let socket = if self.socket.is_none() && !own.exists() && maybe(&system) { system } else { own };
        Ok(Client::new(socket))
    }

    /// Whether it was said, in whatever way but by a socket, that `state_dir` is meant, and a daemon that was found uses another.
    pub(crate) fn means_other_state(&self, state_dir: &Path, of_daemon: Option<&Path>) -> bool {
        let is_said = self.state.is_some() || self.config.is_some();
        self.socket.is_none() && is_said && !of_daemon.is_some_and(|its| is_same_directory(its, state_dir))
    }

    /// The options that make another `pqvpn` resolve the same places.
    pub(crate) fn to_arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = Vec::new();
        let paths = [("--config", &self.config), ("--state", &self.state), ("--socket", &self.socket)];
        for (option, path) in paths {
            if let Some(path) = path {
                arguments.extend([option.into(), path.into()]);
            }
        }
        if let Some(level) = self.log_level {
            arguments.extend(["--log-level".into(), level.name().into()]);
        }
        arguments
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// The path from the root: a daemon in the background changes its working directory.
pub(crate) fn absolute_path(path: &Path) -> PathBuf {
    absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether two paths lead to the same directory: one may go by a link (`/var/run`).
pub(crate) fn is_same_directory(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Whether two paths are one name in one directory; there need not be such a file.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let parents = one.parent().zip(other.parent());
    one == other
        || (one.file_name() == other.file_name() && parents.is_some_and(|(one, other)| is_same_directory(one, other)))
}

fn homeless() -> Failure {
    Failure::usage(
        "no-home",
        "no place for files",
        "this user has no home directory (HOME is not set)",
        "set HOME, or give `--config FILE`, `--state DIR` and `--socket PATH`",
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_leads_to_the_same_place_and_another_name_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let [real, link, other] = ["real", "link", "other"].map(|name| dir.path().join(name));
        [&real, &other].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        symlink(&real, &link).unwrap();
        assert!(is_same_file(&real.join("s"), &link.join("s")), "nothing need be there");
        assert!(!is_same_file(&real.join("s"), &link.join("t")) && !is_same_file(&real.join("s"), &other.join("s")));
        let context = Context {
            output: Output::new(false, false),
            log_level: None,
            config: None,
            state: Some(link.clone()),
            socket: None,
            defaults: None,
        };
        assert!(!context.means_other_state(&link, Some(&real)));
        assert!(context.means_other_state(&link, Some(&other)) && context.means_other_state(&link, None));
    }
}
