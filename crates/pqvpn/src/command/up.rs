// SPDX-License-Identifier: MIT OR Apache-2.0
//! `up`: bring the network up; starts a daemon when none runs, changes no setting.

use std::{
    thread,
    time::{Duration, Instant},
};

use pqvpn_api::{error::Code, model::HealthLevel};
use serde::Serialize;
use serde_json::{Value, json};

use super::{block_on, daemon, status};
use crate::{
    cli::{DaemonArgs, PassphraseArgs},
    context::Context,
    failure::Failure,
    output::printable,
};

/// How long a daemon that another command starts may take, and how often it is asked meanwhile.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let started = ensure(context, args)?;
    let now = block_on(async { Ok(context.client()?.status().await?) })?;
    let json = json!({
        "schema": pqvpn_api::SCHEMA, "state": now.state, "addresses": now.addresses, "interface": now.interface,
        "started_pid": started, "health": now.health,
    });
    context.output.done(&json, |output| {
        let addresses: Vec<String> = now.addresses.iter().map(ToString::to_string).collect();
        let daemon = started.map_or_else(String::new, |pid| format!(" (started a daemon, process {pid})"));
        let wrong = now.health.iter().filter(|item| item.level == HealthLevel::Error);
        let wrong: String = wrong.map(|item| status::health_line(output, item)).collect();
        let next = if status::is_waiting(&now) {
            "An admin has to let this node in; `pqvpn net list` shows when it is in"
        } else if now.peers.is_empty() && now.networks.is_empty() {
            "Make a network: pqvpn net create NAME; or join one: pqvpn join CODE"
        } else {
            "`pqvpn status` shows the peers"
        };
        format!("up: {} {}{daemon}\n{wrong}{next}", printable(&now.name), addresses.join(" "))
    });
    Ok(())
}

/// Sees to it that a daemon runs and carries traffic; the answer is the process id of one started for it.
pub(super) fn ensure(context: &Context, args: &PassphraseArgs) -> Result<Option<u32>, Failure> {
    let client = context.client()?;
    match block_on(async { Ok(client.up().await) })? {
        Ok(_state) => Ok(None),
        Err(error) if error.code == Code::NoDaemon => {
            let pid = match start_daemon(context, args) {
                Ok(pid) => pid,
                // It answers at another socket, and will at no time answer here.
                Err(failure) if failure.code == daemon::IN_USE && daemon::answers_elsewhere(context).is_some() => {
                    return Err(failure.while_doing("no second daemon was started"));
                }
                // Another command was faster.
                Err(failure) if failure.code == daemon::IN_USE => return up_soon(context, args, failure),
                Err(failure) => return Err(failure),
            };
            // Asked again: a daemon of this user may have another socket than the one that did not answer.
            block_on(async { Ok(context.client()?.up().await?) })?;
            Ok(Some(pid))
        }
        Err(error) => Err(error.into()),
    }
}

/// A daemon that somebody else has just started answers in a moment, or ends: then one of our own can start. `otherwise` is
/// why it cannot, where neither happens.
fn up_soon(context: &Context, args: &PassphraseArgs, mut otherwise: Failure) -> Result<Option<u32>, Failure> {
    let until = Instant::now() + STARTS_WITHIN;
    let mut started = None;
    while Instant::now() < until {
        match block_on(async { Ok(context.client()?.up().await) })? {
            Ok(_state) => return Ok(started),
            Err(error) if error.code != Code::NoDaemon => return Err(error.into()),
            Err(_) => thread::sleep(ASK_AGAIN),
        }
        match start_daemon(context, args) {
            Ok(pid) => started = Some(pid),
            Err(failure) if failure.code == daemon::IN_USE => otherwise = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(otherwise)
}

/// What a command answers, and which daemon it started for it.
pub(super) fn with_started(answer: &impl Serialize, started: Option<u32>) -> Value {
    let mut json = serde_json::to_value(answer).unwrap_or_default();
    if let Some(object) = json.as_object_mut() {
        object.insert("started_pid".to_owned(), started.into());
    }
    json
}

/// Says of a command that failed that the daemon it started goes on, if so.
pub(super) fn remark_started(context: &Context, started: Option<u32>) {
    if let Some(pid) = started {
        context.output.remark(&format!("a daemon was started for this and goes on, process {pid}"));
    }
}

/// Says that a daemon was started, if so.
pub(super) fn started_line(started: Option<u32>) -> String {
    started.map_or_else(String::new, |pid| format!("started a daemon, process {pid}\n"))
}

fn start_daemon(context: &Context, args: &PassphraseArgs) -> Result<u32, Failure> {
    daemon::start_in_background(context, &DaemonArgs { passphrase: args.clone(), ..DaemonArgs::default() })
}
