// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a configuration, one line per problem.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Why there is no usable configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {}", path.display(), read_reason(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: larger than {limit} bytes; this is not a configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The text is not well-formed TOML or YAML.
    #[error("{}{what}", place(origin, *line))]
    Syntax {
        /// Name of the source.
        origin: String,
        /// 1-based line, where known.
        line: Option<usize>,
        /// What the parser expected.
        what: String,
    },
    /// The text is well-formed, but what it says cannot be done; at least one problem.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Whether the file simply does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// One wrong key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the source (file path).
    pub origin: String,
    /// 1-based line, where known.
    pub line: Option<usize>,
    /// Dotted key, like `peers[1].id`.
    pub key: String,
    /// What is wrong and what was expected, in one line.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key may hold anything TOML can quote, terminal escapes included.
        write!(f, "{}{}: {}", place(&self.origin, self.line), self.key.escape_debug(), self.what)
    }
}

/// Something legal that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Stable code for scripts, like `no-peers`.
    pub code: &'static str,
    /// Dotted key it is about.
    pub key: String,
    /// One line for people.
    pub text: String,
}

impl Warning {
    /// Whether it describes what many sound set-ups have, and is worth a line only to who asks for a check.
    #[must_use]
    pub fn is_common(&self) -> bool {
        matches!(self.code, "peer-no-endpoint" | "no-peers-yet")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

fn place(origin: &str, line: Option<usize>) -> String {
    line.map_or_else(|| format!("{origin}: "), |line| format!("{origin}:{line}: "))
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

fn read_reason(source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::NotFound {
        "no such file".to_owned()
    } else {
        format!("cannot be read: {source}")
    }
}
