// SPDX-License-Identifier: MIT OR Apache-2.0
//! The path that a carrier's web server knows: whoever asks for another gets an ordinary page.
//!
//! It is no key. It keeps those out who look for servers without knowing whom: the PeerID of the server is what members,
//! codes and bootstrap lists name. The link inside proves who is there.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use data_encoding::BASE32_NOPAD;
use pqvpn_crypto::peer_id::PeerId;

/// What is authenticated besides the day; a new form of carrier gets a new label.
const LABEL: &[u8] = b"pqvpn wss path v1";
const DAY_S: u64 = 86_400;
/// Bytes of the code that the path shows.
const SHOWN: usize = 16;

/// The path at a server on the day of `unix_s`.
pub(super) fn path(server: &PeerId, unix_s: u64) -> String {
    path_of_day(server, unix_s / DAY_S)
}

/// Whether a path is that of today, or of the day before or after: clocks differ.
pub(super) fn is_path(server: &PeerId, unix_s: u64, asked: &str) -> bool {
    let today = unix_s / DAY_S;
    let days = [today.saturating_sub(1), today, today + 1];
    days.iter().fold(false, |fits, day| {
        fits | verify_slices_are_equal(path_of_day(server, *day).as_bytes(), asked.as_bytes()).is_ok()
    })
}

fn path_of_day(server: &PeerId, day: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, server.as_bytes());
    let tag = hmac::sign(&key, &[LABEL, &day.to_be_bytes()].concat());
    let shown = tag.as_ref().get(..SHOWN).unwrap_or_default();
    format!("/{}", BASE32_NOPAD.encode(shown).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 20_000 * DAY_S + DAY_S / 2;

    #[test]
    fn a_path_is_of_one_server_and_of_three_days() {
        let (server, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let today = path(&server, NOON);
        assert_eq!(today.len(), 27);
        for now in [NOON - DAY_S, NOON, NOON + DAY_S] {
            assert!(is_path(&server, now, &today));
        }
        for now in [0, NOON - 2 * DAY_S, NOON + 2 * DAY_S] {
            assert!(!is_path(&server, now, &today), "{now}");
        }
        assert!(!is_path(&other, NOON, &today));
        for wrong in ["", "/", &today[..26], &format!("{today}x"), &today.to_uppercase()] {
            assert!(!is_path(&server, NOON, wrong), "{wrong}");
        }
    }
}
