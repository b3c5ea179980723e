// SPDX-License-Identifier: MIT OR Apache-2.0
//! A failed command: exit code, and one line each for what, why and what to try.

use std::{fmt::Display, io, path::Path};

use pqvpn_api::{error::ApiError, server::SocketError};
use pqvpn_node::{config::ConfigError, store::StoreError};
use serde_json::{Value, json};

use crate::command::daemon::IN_USE;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code (`cli.md`, Global).
    pub(crate) exit: u8,
    /// Stable code for scripts.
    pub(crate) code: String,
    /// What did not happen.
    pub(crate) what: String,
    /// Why; several lines only where there are several causes.
    pub(crate) why: Vec<String>,
    /// What to try next.
    pub(crate) hint: String,
    /// What `--json` prints beside the error, where the failure is an answer of its own.
    pub(crate) json: Option<Box<Value>>,
}

impl Failure {
    /// It failed: exit code 1.
    pub(crate) fn failed(code: &str, what: impl Into<String>, why: impl Display, hint: impl Into<String>) -> Self {
        let why = why.to_string().lines().map(str::to_owned).collect();
        Self { exit: 1, code: code.into(), what: what.into(), why, hint: hint.into(), json: None }
    }

    /// The caller asked for something that makes no sense: exit code 2.
    pub(crate) fn usage(code: &str, what: impl Into<String>, why: impl Display, hint: impl Into<String>) -> Self {
        Self { exit: 2, ..Self::failed(code, what, why, hint) }
    }

    /// What the parser of the command line says, in the three lines of every other failure; `verb` is what was typed, as
    /// far as it is known.
    pub(crate) fn command_line(said: &str, verb: &str) -> Self {
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let aside = |line: &&&str| ["tip: ", "Usage: ", "For more"].iter().any(|word| line.starts_with(word));
        let why = said.iter().take_while(|line| !aside(line)).copied().collect::<Vec<_>>().join(" ");
        let tip = said.iter().find_map(|line| line.strip_prefix("tip: "));
        let usage = said.iter().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or(verb);
        let verb: Vec<&str> = usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
        let help = format!("`{} --help` shows what can be said", verb.join(" "));
        let hint = tip.map_or_else(|| help.clone(), |tip| format!("{tip}; {help}"));
        let why = why.strip_prefix("error: ").unwrap_or(&why);
        Self::usage("usage", "the command line was not understood", why, hint)
    }

    /// It is not allowed: exit code 4.
    pub(crate) fn refused(code: &str, what: impl Into<String>, why: impl Display, hint: impl Into<String>) -> Self {
        Self { exit: 4, ..Self::failed(code, what, why, hint) }
    }

    /// A file could not be read or written.
    pub(crate) fn file(what: impl Into<String>, path: &Path, error: &io::Error) -> Self {
        let why = format!("{}: {error}", path.display());
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of IO errors are endless")]
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::refused("permission", what, why, "run as a user who may, or name another path")
            }
            io::ErrorKind::StorageFull => Self::failed("file", what, why, "free some space"),
            io::ErrorKind::ReadOnlyFilesystem => Self::failed("file", what, why, "name a place that can be written to"),
            _ => Self::failed("file", what, why, "check the path"),
        }
    }

    /// The same failure, with another first line.
    pub(crate) fn while_doing(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self }
    }

    /// The failure as `--json` prints it.
    pub(crate) fn to_json(&self) -> Value {
        let error = json!({"code": self.code, "what": self.what, "why": self.why.join("\n"), "try": self.hint});
        match self.json.as_deref() {
            Some(Value::Object(answer)) => {
                let mut answer = answer.clone();
                answer.insert("error".to_owned(), error);
                Value::Object(answer)
            }
            Some(answer) => answer.clone(),
            None => json!({"schema": pqvpn_api::SCHEMA, "error": error}),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = serde_json::to_value(error.code).ok().and_then(|code| code.as_str().map(str::to_owned));
        Self {
            exit: error.code.exit_code(),
            code: code.unwrap_or_else(|| "failed".into()),
            what: error.what,
            why: vec![error.why],
            hint: error.hint,
            json: None,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::failed("keystore", "the key was not touched", &error, error.hint());
        if error.is_refusal() { Self { exit: 4, ..failure } } else { failure }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            _ if error.is_not_found() => "`pqvpn config init` writes one; `--config FILE` names another",
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => {
                "check the path given by `--config` or PQVPN_CONFIG, and who may read the file"
            }
            ConfigError::Syntax { .. } | ConfigError::Invalid(_) | _ => {
                "correct the lines named; `pqvpn config init --stdout` shows every key"
            }
        };
        Self {
            exit: 2,
            code: "config".into(),
            what: "the configuration cannot be used".into(),
            why: error.to_string().lines().map(str::to_owned).collect(),
            hint: hint.into(),
            json: None,
        }
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let what = "no control socket";
        #[expect(clippy::wildcard_enum_match_arm, reason = "for all others another path is the way out")]
        match &error {
            SocketError::InUse(_) => Self::failed(
                IN_USE,
                "a second daemon was not started",
                &error,
                "`pqvpn status` shows the first; `--socket`, `--state` and `--config` make a separate one",
            ),
            SocketError::Io { error: cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                Self::refused("permission", what, &error, "run as root, or name another place with `--socket PATH`")
            }
            _ => Self::failed("socket", what, &error, "name another place with `--socket PATH`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_says_becomes_three_lines() {
        let said = "error: unexpected argument '-1' found\n\n  tip: to pass '-1' as a value, use '-- -1'\n\n\
                    Usage: pqvpn ping [OPTIONS] <PEER>\n\nFor more information, try '--help'.\n";
        let failure = Failure::command_line(said, "pqvpn");
        assert_eq!((failure.exit, failure.code.as_str()), (2, "usage"));
        assert_eq!(failure.why, ["unexpected argument '-1' found"]);
        assert_eq!(failure.hint, "to pass '-1' as a value, use '-- -1'; `pqvpn ping --help` shows what can be said");
        let said = "error: the following required arguments were not provided:\n  <KEY>\n  <VALUE>\n\n\
                    Usage: pqvpn set <KEY> <VALUE>\n\nFor more information, try '--help'.\n";
        let failure = Failure::command_line(said, "pqvpn");
        assert_eq!(failure.why, ["the following required arguments were not provided: <KEY> <VALUE>"]);
        assert_eq!(failure.hint, "`pqvpn set --help` shows what can be said");
        let said =
            "error: invalid value '0' for '--count <COUNT>': 0 is not in 1..\n\nFor more information, try '--help'.\n";
        let failure = Failure::command_line(said, "pqvpn ping");
        assert_eq!(failure.hint, "`pqvpn ping --help` shows what can be said");
    }

    #[test]
    fn a_reason_of_several_lines_stays_several_lines() {
        assert_eq!(Failure::failed("x", "y", "a\nb", "z").why, ["a", "b"]);
    }
}
