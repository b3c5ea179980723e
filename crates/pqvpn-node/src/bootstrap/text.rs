// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries as a text file people can read, write and review before they sign it.

use thiserror::Error;

use super::{BootstrapEntry, MAX_ENTRIES};

/// Why a text is no file of entries.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntriesError {
    /// A line is no entry.
    #[error("line {line}: {what}")]
    Line {
        /// 1-based.
        line: usize,
        /// What was expected.
        what: String,
    },
    /// An entry stands there twice.
    #[error("line {line}: the same entry as in line {first}")]
    Twice {
        /// 1-based, of the second one.
        line: usize,
        /// 1-based, of the first one.
        first: usize,
    },
    /// More entries than one file may hold.
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// Reads one entry per line; empty lines and what follows `#` do not count.
///
/// # Errors
/// A line is malformed or repeated, or there are more than [`MAX_ENTRIES`].
pub fn entries_from_text(text: &str) -> Result<Vec<BootstrapEntry>, EntriesError> {
    let mut found: Vec<(usize, BootstrapEntry)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let bare = line.split('#').next().unwrap_or_default().trim();
        if bare.is_empty() {
            continue;
        }
        if found.len() == MAX_ENTRIES {
            return Err(EntriesError::TooMany);
        }
        let entry = bare.parse().map_err(|what| EntriesError::Line { line: number, what })?;
        if let Some((first, _)) = found.iter().find(|(_, other)| *other == entry) {
            return Err(EntriesError::Twice { line: number, first: *first });
        }
        found.push((number, entry));
    }
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// Writes one entry per line.
#[must_use]
pub fn entries_to_text(entries: &[BootstrapEntry]) -> String {
    entries.iter().map(|entry| format!("{entry}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> String {
        format!("pqvpn://{}@198.51.100.{number}:41641", "ab".repeat(32))
    }

    #[test]
    fn comments_and_empty_lines_do_not_count() {
        let text = format!("# mine\n\n  {}  # in the cellar\r\n{}", entry(1), entry(2));
        let entries = entries_from_text(&text).unwrap();
        assert_eq!(entries_to_text(&entries), format!("{}\n{}\n", entry(1), entry(2)));
        assert_eq!(entries_from_text(""), Ok(Vec::new()));
    }

    #[test]
    fn the_wrong_line_is_named() {
        let error = entries_from_text(&format!("{}\nseed.example:1\n", entry(1))).unwrap_err();
        assert!(error.to_string().starts_with("line 2: expected"), "{error}");
        let error = entries_from_text(&format!("{}\n\n{}\n", entry(1), entry(1))).unwrap_err();
        assert_eq!(error, EntriesError::Twice { line: 3, first: 1 });
    }

    #[test]
    fn a_file_holds_64_entries_and_no_more() {
        let lines = |count| (1..=count).map(|number| entry(number) + "\n").collect::<String>();
        assert_eq!(entries_from_text(&lines(64)).map(|entries| entries.len()), Ok(64));
        assert_eq!(entries_from_text(&lines(65)), Err(EntriesError::TooMany));
    }
}
