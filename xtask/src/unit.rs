// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lane `unit-file`: what systemd itself thinks of the hardening of our unit. That the daemon runs under it is a test of
//! its own (`crates/pqvpn/tests/e2e/unit.rs`): a score does not prove that it still works.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{lane::Tally, packages::on_path};

/// Tenths of the worst exposure that is allowed: 2.0 of 10.
const WORST: u32 = 20;
const TOOL: &str = "systemd-analyze";

/// Rates every unit of `packaging/systemd`.
///
/// # Errors
/// The tool does not start.
pub(crate) fn run(tally: &mut Tally) -> Result<()> {
    if !on_path(TOOL) {
        tally.skips.push(format!("lane unit-file: {TOOL} is missing (apt install systemd)"));
        return Ok(());
    }
    for unit in units()? {
        let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (exposure, good) = rate(&unit)?;
        println!("FIGURE unit-file unit={name} exposure={exposure} (bar {}.{})", WORST / 10, WORST % 10);
        if good {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            tally.failures.push(format!("lane unit-file: {name} is exposed by {exposure}"));
        }
    }
    Ok(())
}

fn units() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("packaging/systemd");
    let files = fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut units: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    units.retain(|unit| unit.extension().is_some_and(|extension| extension == "service"));
    anyhow::ensure!(!units.is_empty(), "there is no unit in {}", folder.display());
    units.sort();
    Ok(units)
}

/// The exposure systemd sees, and whether that is little enough; it needs no running systemd for that.
fn rate(unit: &Path) -> Result<(String, bool)> {
    let mut command = Command::new(TOOL);
    command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={WORST}")]).arg(unit);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{TOOL} did not start"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((exposure(&said).unwrap_or(said.trim()).to_owned(), output.status.success()))
}

/// The number of `Overall exposure level for UNIT: 1.8 OK`.
fn exposure(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.contains("exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_read() {
        let said = "x\n→ Overall exposure level for pqvpnd.service: 1.8 OK 🙂\n";
        assert_eq!(exposure(said), Some("1.8"));
        assert_eq!(exposure("nothing"), None);
    }

    #[test]
    fn a_unit_without_its_limits_does_not_pass() {
        if !on_path(TOOL) {
            eprintln!("SKIP: {TOOL} is not installed");
            return;
        }
        let ours = units().unwrap();
        let text = fs::read_to_string(&ours[0]).unwrap();
        let open: String =
            text.lines().filter(|line| !line.starts_with("SystemCallFilter")).collect::<Vec<_>>().join("\n");
        let folder = std::env::temp_dir().join(format!("pqvpn-unit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let worse = folder.join("worse.service");
        fs::write(&worse, open).unwrap();
        let rated = (rate(&ours[0]).unwrap(), rate(&worse).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        assert!(rated.0.1, "{rated:?}");
        assert!(!rated.1.1, "{rated:?}");
    }
}
