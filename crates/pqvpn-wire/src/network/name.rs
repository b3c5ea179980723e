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
