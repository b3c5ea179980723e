// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command prints: results to standard output, the rest to standard error, colour only on a terminal.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::failure::Failure;

/// How to print, fixed when the program starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    quiet: bool,
    colour: bool,
}

/// What a word says about the state of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        // no-color.org: any value but the empty one.
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, quiet, colour: !json && !no_colour && io::stdout().is_terminal() }
    }

    /// Whether only results and errors are wanted.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints the result: one line of JSON, or text.
    pub(crate) fn result(&self, json: &impl Serialize, text: impl FnOnce(&Self) -> String) {
        let _gone = self.frame(json, text);
    }

    /// As [`Self::result`], for one of many.
    ///
    /// # Errors
    /// Nobody reads them any more.
    pub(crate) fn frame(&self, json: &impl Serialize, text: impl FnOnce(&Self) -> String) -> io::Result<()> {
        if self.json {
            print_line(&serde_json::to_string(json).unwrap_or_default())
        } else {
            print_line(text(self).trim_end_matches('\n'))
        }
    }

    /// Prints that something was done; nothing when quiet.
    pub(crate) fn done(&self, json: &impl Serialize, text: impl FnOnce(&Self) -> String) {
        if self.json || !self.quiet {
            self.result(json, text);
        }
    }

    /// Prints one line of progress to people; nothing when quiet or for scripts.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub(crate) fn progress(&self, text: &str) -> io::Result<()> {
        if self.json || self.quiet { Ok(()) } else { print_line(text) }
    }

    /// Prints text as it is, whatever the format.
    pub(crate) fn verbatim(&self, text: &str) {
        let _gone = print_line(text.trim_end_matches('\n'));
    }

    /// Prints a remark to standard error; nothing when quiet.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet {
            eprint_line(&format!("note: {}", printable(text)));
        }
    }

    /// Prints why the command failed: for people to standard error, for scripts to standard output as well.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            let _gone = print_line(&failure.to_json().to_string());
        }
        eprint_line(&format!("error: {}", printable(&failure.what)));
        for why in &failure.why {
            eprint_line(&format!("  why: {}", printable(why)));
        }
        eprint_line(&format!("  try: {}", printable(&failure.hint)));
    }

    /// Colours a text when colours are wanted.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Clears the screen before the next frame of `--watch`.
    pub(crate) fn next_frame(&self) {
        if !self.json && io::stdout().is_terminal() {
            print_raw("\x1b[H\x1b[2J\x1b[3J");
        }
    }
}

/// Text from elsewhere, made harmless for a terminal: control characters become `?`.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Lays out rows in columns two spaces apart; the tone colours a cell without counting as width.
pub(crate) fn table(output: &Output, rows: &[Vec<(Tone, String)>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| chars(&cell.1)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (tone, cell)) in row.iter().enumerate() {
            text.push_str(&output.tone(*tone, cell));
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] - chars(cell) + 2));
            }
        }
        text.push('\n');
    }
    text
}

/// So many of something, like `1 member` or `3 members`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Bytes with a binary unit, like `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds as people say them, like `41s`, `7m` or `3h`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment given in ms since 1970, like `2026-11-22 00:50 UTC`.
pub(crate) fn date(ms: u64) -> String {
    let minutes = ms / 60_000;
    let (days, minutes) = (minutes / 1440, minutes % 1440);
    // Days to a date of the civil calendar: Hinnant, "chrono-compatible low-level date algorithms", years from March.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Whether something could not be written although somebody wanted to read it: a disk is full.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// Whether an answer was not written; a reader that has gone is no reason.
pub(crate) fn unwritten() -> bool {
    UNWRITTEN.load(Ordering::Relaxed)
}

/// Notes why an answer was not written.
pub(crate) fn note_unwritten(error: &io::Error) {
    if error.kind() != io::ErrorKind::BrokenPipe {
        UNWRITTEN.store(true, Ordering::Relaxed);
    }
}

/// A reader that has gone away (`pqvpn peers | head`) is no failure, but a reason to stop talking.
fn print_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).inspect_err(note_unwritten)
}

fn print_raw(text: &str) {
    let mut stdout = io::stdout().lock();
    let _gone = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).inspect_err(note_unwritten);
}

fn eprint_line(line: &str) {
    let _gone = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_colour_does_not_count() {
        let output = Output { json: false, quiet: false, colour: true };
        let rows = [
            vec![(Tone::Plain, "PEER".into()), (Tone::Plain, "X".into())],
            vec![(Tone::Good, "a".into()), (Tone::Plain, "y".into())],
        ];
        assert_eq!(table(&output, &rows), "PEER  X\n\x1b[32ma\x1b[0m     y\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a?[2Jb?c");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_308_659_999), "2026-11-22 00:50 UTC");
        assert_eq!(date(4_107_542_399_000), "2100-02-28 23:59 UTC");
        assert!(date(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "node")), ["0 nodes", "1 node", "2 nodes"]);
    }

    #[test]
    fn bytes_and_ages_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_023_999), "1000.0 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(age(119), "119s");
        assert_eq!(age(7_199), "119m");
        assert_eq!(age(172_800), "2d");
    }
}
