// SPDX-License-Identifier: MIT OR Apache-2.0
//! A code as a QR code of half blocks, for the camera of a phone or of the other machine.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::failure::Failure;

/// The picture, ending with a line end. In upper case, which QR codes hold in little more than half the room
/// (ISO/IEC 18004 7.4.4) and codes do not care about.
pub(super) fn picture(code: &str) -> Result<String, Failure> {
    let drawn = QrCode::with_error_correction_level(code.to_ascii_uppercase(), EcLevel::L).map_err(|error| {
        let what = "the invite was made, but not drawn";
        Failure::failed("qr", what, error, "`pqvpn invite` without `--qr`, and copy the text")
    })?;
    // Blocks of the terminal's foreground are the light ones: most terminals are dark.
    let picture =
        drawn.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build();
    Ok(picture + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_code_fits_a_terminal() {
        let code = format!("pqvpn1-{}", "abcdefgh234567".repeat(40));
        let picture = picture(&code).unwrap();
        let width = picture.lines().map(|line| line.chars().count()).max();
        assert!(width <= Some(100), "{width:?}");
        assert!(picture.lines().all(|line| line.chars().all(|c| " ▀▄█".contains(c))));
    }

    #[test]
    fn what_no_qr_code_can_hold_is_an_error() {
        assert!(picture(&"a".repeat(5000)).is_err());
    }
}
