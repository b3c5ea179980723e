// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of networks and members: labels as DNS has them, in one spelling.

use super::{MAX_LABEL_LEN, MAX_TAG_LEN, MAX_TAGS};

/// Whether text is a name: 1 to 63 of a-z, 0-9 and "-", neither first nor last "-" (RFC 1035 §2.3.1, RFC 1123 §2.1).
#[must_use]
pub fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL_LEN).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The nearest name to what a person or a host calls itself: "Ann's Laptop" gives "ann-s-laptop"; "" if nothing is left.
#[must_use]
pub fn label_of(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() == MAX_LABEL_LEN {
            break;
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    out
}

/// Whether a character shows nothing, or changes how those around it are shown (Unicode TR 9, TR 36).
#[must_use]
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text of somebody else as it may be shown: what misleads is written out, like `\u{202e}`.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Whether text is a tag: 1 to 32 of a-z, 0-9, "-", "_" and ".".
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=MAX_TAG_LEN).contains(&text.len()) && text.bytes().all(legal)
}

/// Whether a list of tags is legal: at most 8, each one legal, strictly ascending.
#[must_use]
pub fn are_tags(tags: &[String]) -> bool {
    tags.len() <= MAX_TAGS && tags.iter().all(|tag| is_tag(tag)) && tags.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_another_is_shown_that_changes_what_is_around_it() {
        assert_eq!(
            plain("lost: Zoë's «laptop», 2\u{202e}gpj\u{200b}\x1b[2J"),
            "lost: Zoë's «laptop», 2\\u{202e}gpj\\u{200b}\\u{1b}[2J"
        );
        for c in ['\n', '\u{7f}', '\u{9b}', '\u{2066}', '\u{2069}', '\u{202a}', '\u{200f}', '\u{feff}', '\u{e0041}'] {
            assert!(misleads(c), "{c:?}");
        }
        assert!(!"plain text, ñ, 漢字, עברית, 🙂".chars().any(misleads));
    }
}
