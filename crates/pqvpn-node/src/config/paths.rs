// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where configuration, state and control socket live when nobody says otherwise.

use std::{ffi::OsString, path::PathBuf};

/// The three places a node uses on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// Identity, journal and state; mode 0700.
    pub state_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
}

impl Paths {
    /// The paths of a system service.
    #[must_use]
    pub fn system() -> Self {
        Self {
            config: "/etc/pqvpn/config.toml".into(),
            state_dir: "/var/lib/pqvpn".into(),
            socket: "/run/pqvpn/pqvpn.sock".into(),
        }
    }

    /// The XDG twins for a user without root; `env` looks up an environment variable.
    ///
    /// None when there is no home to put them in. Without `XDG_RUNTIME_DIR` the socket lives in the state directory.
    #[must_use]
    pub fn user(env: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        // The XDG base directory specification has relative paths ignored.
        let dir = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = dir("HOME");
        let under_home = |name: &str, rest: &str| dir(name).or_else(|| home.as_ref().map(|home| home.join(rest)));
        let state_dir = under_home("XDG_STATE_HOME", ".local/state")?.join("pqvpn");
        let socket = match dir("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join("pqvpn/pqvpn.sock"),
            None => state_dir.join("pqvpn.sock"),
        };
        let config = under_home("XDG_CONFIG_HOME", ".config")?.join("pqvpn/config.toml");
        Some(Self { config, state_dir, socket })
    }

    /// [`Paths::system`] for root, else [`Paths::user`].
    #[must_use]
    pub fn defaults(is_root: bool, env: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        if is_root { Some(Self::system()) } else { Self::user(env) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn root_uses_the_system_paths() {
        assert_eq!(Paths::defaults(true, env(&[("HOME", "/root")])), Some(Paths::system()));
    }

    #[test]
    fn user_follows_xdg_and_falls_back_to_home() {
        let all = [("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")];
        let paths = Paths::user(env(&all)).unwrap();
        assert_eq!(paths.config, PathBuf::from("/c/pqvpn/config.toml"));
        assert_eq!(paths.state_dir, PathBuf::from("/s/pqvpn"));
        assert_eq!(paths.socket, PathBuf::from("/r/pqvpn/pqvpn.sock"));

        let paths = Paths::user(env(&[("HOME", "/home/u"), ("XDG_STATE_HOME", "relative")])).unwrap();
        assert_eq!(paths.config, PathBuf::from("/home/u/.config/pqvpn/config.toml"));
        assert_eq!(paths.socket, PathBuf::from("/home/u/.local/state/pqvpn/pqvpn.sock"));
    }

    #[test]
    fn user_without_home_has_no_paths() {
        assert_eq!(Paths::user(env(&[])), None);
    }
}
