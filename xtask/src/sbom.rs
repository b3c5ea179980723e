// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bill of materials of a release: what is in the program, with versions, licences and checksums (CycloneDX 1.5).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    lane::in_cargo_home,
    release::{SOURCE, date_of},
};

/// The tool and the version that is known to do it.
const TOOL: &str = "cargo-cyclonedx";
const VERSION: &str = "0.5.9";

/// Writes `target/pqvpn.cdx.json`.
///
/// # Errors
/// The tool is missing or fails.
pub(crate) fn write() -> Result<()> {
    if !crate::packages::on_path(TOOL) && !in_cargo_home(TOOL) {
        bail!("{TOOL} is missing: cargo install --locked --version {VERSION} {TOOL}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the repository")?;
    let mut command = Command::new(env!("CARGO"));
    command.env("SOURCE_DATE_EPOCH", date_of("HEAD")?);
    // Once for all members; that of the program is kept.
    command.current_dir(root).args(["cyclonedx", "--format", "json", "--spec-version", "1.5"]);
    command.args(["--target", "x86_64-unknown-linux-gnu", "--no-build-deps", "--override-filename", "sbom.cdx"]);
    if !command.stdin(Stdio::null()).status().context("cargo did not start")?.success() {
        bail!("{TOOL} failed");
    }
    let made: Vec<PathBuf> = fs::read_dir(root.join("crates"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("sbom.cdx.json")))
        .chain([root.join("xtask/sbom.cdx.json")])
        .filter(|path| path.exists())
        .collect();
    let own = made.iter().find(|path| path.ends_with("pqvpn/sbom.cdx.json")).context("the program has no bill")?;
    let bill = root.join("target/pqvpn.cdx.json");
    // Where this machine has the files is nobody's business, and would make each machine's bill another.
    let text = fs::read_to_string(own)?.replace(&root.display().to_string(), SOURCE);
    fs::write(&bill, &text)?;
    let components = text.matches("\"purl\"").count();
    for path in made {
        fs::remove_file(path)?;
    }
    println!("FIGURE sbom components={components} file={}", bill.display());
    Ok(())
}
