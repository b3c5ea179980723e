// SPDX-License-Identifier: MIT OR Apache-2.0
//! `up`: bring the network up; starts a daemon when none runs, changes no setting.

use pqvpn_api::error::Code;
use serde_json::json;

use super::{block_on, daemon};
use crate::{
    cli::{DaemonArgs, PassphraseArgs},
    context::Context,
    failure::Failure,
};

pub(crate) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let started = match block_on(async { Ok(client.up().await) })? {
        Ok(_state) => None,
        Err(error) if error.code == Code::NoDaemon => Some(start_daemon(context, args)?),
        Err(error) => return Err(error.into()),
    };
    // Asked again: a daemon of this user may have another socket than the one that did not answer.
    let status = block_on(async {
        let client = context.client()?;
        if started.is_some() {
            client.up().await?;
        }
        Ok(client.status().await?)
    })?;
    let json = json!({
        "schema": pqvpn_api::SCHEMA, "state": status.state, "addresses": status.addresses, "interface": status.interface,
        "started_pid": started,
    });
    context.output.done(&json, |_| {
        let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
        let daemon = started.map_or_else(String::new, |pid| format!(" (started a daemon, process {pid})"));
        format!("up: {} {}{daemon}\n`pqvpn status` shows the peers", status.name, addresses.join(" "))
    });
    Ok(())
}

fn start_daemon(context: &Context, args: &PassphraseArgs) -> Result<u32, Failure> {
    daemon::start_in_background(context, &DaemonArgs { passphrase: args.clone(), ..DaemonArgs::default() })
}
