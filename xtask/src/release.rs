// SPDX-License-Identifier: MIT OR Apache-2.0
//! A release that anybody can build again: from a copy of the committed files, with every path and date of this machine left out.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Where a build seems to happen.
pub(crate) const SOURCE: &str = "/pqvpn";
const REGISTRY: &str = "/cargo";
/// The program a release consists of.
const BINARY: &str = "target/release/pqvpn";

/// Builds a release, and says which it is.
///
/// # Errors
/// Nothing is committed, or it does not build.
pub(crate) fn release() -> Result<()> {
    let folder = root().join("target/release-build");
    let (binary, hash) = build(&folder, &committed()?)?;
    println!("{hash}  {}", binary.display());
    Ok(())
}

/// Builds it in two folders and compares: whether they are the same, byte for byte.
///
/// # Errors
/// Nothing is committed, or it does not build.
pub(crate) fn reproduce() -> Result<bool> {
    let place = root().join("target");
    // Once: what is committed while the first is built is not in the second.
    let (commit, mut hashes) = (committed()?, Vec::new());
    for name in ["reproduce-one", "reproduce/in-another-place"] {
        let (binary, hash) = build(&place.join(name), &commit)?;
        println!("{hash}  {}", binary.display());
        hashes.push(hash);
    }
    let same = hashes.windows(2).all(|pair| pair[0] == pair[1]);
    println!("FIGURE reproduce builds={} same={same}", hashes.len());
    Ok(same)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository").to_owned()
}

/// What is committed now.
fn committed() -> Result<String> {
    Ok(output(Command::new("git").current_dir(root()).args(["rev-parse", "HEAD"]))?.trim().to_owned())
}

/// When a commit was made, in seconds since 1970.
pub(crate) fn date_of(commit: &str) -> Result<String> {
    let said = output(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct", commit]))?;
    Ok(said.trim().to_owned())
}

/// Builds a commit in a new `folder`; gives the program and its SHA-256.
fn build(folder: &Path, commit: &str) -> Result<(PathBuf, String)> {
    let there = fs::remove_dir_all(folder);
    if there.is_err() && folder.exists() {
        bail!("{} cannot be emptied", folder.display());
    }
    fs::create_dir_all(folder)?;
    let archive = folder.with_extension("tar");
    run(Command::new("git").current_dir(root()).args(["archive", "--format=tar", "-o"]).arg(&archive).arg(commit))?;
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    fs::remove_file(&archive)?;
    let date = date_of(commit)?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let home = home.context("there is no home of cargo")?;
    let (from, cargo) = (folder.display(), home.display());
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(folder)
        .args(["build", "--locked", "--release", "--package", "pqvpn"])
        .env("SOURCE_DATE_EPOCH", date)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", format!("--remap-path-prefix={from}={SOURCE} --remap-path-prefix={cargo}={REGISTRY}"))
        // The C of the cryptographic library.
        .env("CFLAGS", format!("-ffile-prefix-map={from}={SOURCE} -ffile-prefix-map={cargo}={REGISTRY}"));
    for name in ["CXXFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    run(&mut command)?;
    let binary = folder.join(BINARY);
    let sum = output(Command::new("sha256sum").arg(&binary))?;
    let hash = sum.split_whitespace().next().context("sha256sum said nothing")?.to_owned();
    Ok((binary, hash))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?} did not start"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} failed") }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} did not start"))?;
    if output.status.success() { Ok(String::from_utf8(output.stdout)?) } else { bail!("{command:?} failed") }
}
