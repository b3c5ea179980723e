// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon in the background: this program again, in a session of its own, which says when it is ready.
//!
//! The child prints one line of JSON to a pipe: that it is ready, or why it failed. Until then the parent waits, so
//! that a daemon that cannot start is an error here and not a line in a log.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{context::Context, failure::Failure};

/// Starts `pqvpn daemon` with further `arguments` and waits until it is ready; the answer is its process id.
///
/// # Errors
/// It cannot be started, or whatever kept it from being ready.
pub(crate) fn start(
    context: &Context,
    arguments: &[OsString],
    passphrase: Option<Zeroizing<Vec<u8>>>,
) -> Result<u32, Failure> {
    let mut child = spawn(context, arguments, passphrase)
        .map_err(|error| Failure::failed("spawn", "no daemon was started", error, "`pqvpn daemon` shows more"))?;
    let pid = child.id();
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A line cut short is no JSON, and told below.
        let _read = BufReader::new(stdout).read_line(&mut line);
    }
    let answer: Value = serde_json::from_str(&line).unwrap_or_default();
    if answer["ready"] == true { Ok(pid) } else { Err(failure_of(child, &answer["error"])) }
}

/// Makes this process, started by [`start`], independent of the terminal it came from.
pub(crate) fn leave_session() {
    // Fails only for the leader of a process group, which a child of `start` is not.
    let _already = nix::unistd::setsid();
}

/// Tells the waiting parent that the daemon runs, and lets go of the directory it was started in.
pub(crate) fn report_ready(context: &Context) {
    context.output.verbatim(&json!({"schema": pqvpn_api::SCHEMA, "ready": true}).to_string());
    let _stays = env::set_current_dir("/");
}

fn spawn(context: &Context, arguments: &[OsString], passphrase: Option<Zeroizing<Vec<u8>>>) -> std::io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(context.to_arguments()).args(["--json", "daemon", "--detached"]).args(arguments);
    if passphrase.is_some() {
        command.args(["--passphrase-file", "-"]);
    }
    let stdin = if passphrase.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let (Some(mut stdin), Some(passphrase)) = (child.stdin.take(), passphrase) {
        // A child that ended before reading has said why on its standard output.
        let _gone = stdin.write_all(&passphrase);
    }
    Ok(child)
}

fn failure_of(mut child: Child, error: &Value) -> Failure {
    let status = child.wait();
    let line = |key: &str| error[key].as_str().map(str::to_owned);
    let exit = status.as_ref().ok().and_then(std::process::ExitStatus::code).and_then(|code| u8::try_from(code).ok());
    match (line("what"), line("why"), line("try")) {
        (Some(what), Some(why), Some(hint)) => Failure {
            exit: exit.filter(|code| *code != 0).unwrap_or(1),
            code: line("code").unwrap_or_else(|| "failed".into()),
            what,
            why: why.lines().map(str::to_owned).collect(),
            hint,
            json: None,
        },
        _ => {
            let why = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Failure::failed("daemon", "the daemon ended before it was ready", why, "`pqvpn daemon` shows more")
        }
    }
}
