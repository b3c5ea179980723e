// SPDX-License-Identifier: MIT OR Apache-2.0
//! `host`: what a daemon that was killed has left on this host.

use pqvpn_api::SCHEMA;
use pqvpn_node::host::{self, Cleaned, HostError};
use serde_json::json;

use super::{block_on, daemon};
use crate::{
    cli::{CleanArgs, HostVerb},
    context::Context,
    failure::Failure,
};

const WHAT: &str = "the host was not cleaned";

pub(crate) fn run(context: &Context, verb: &HostVerb) -> Result<(), Failure> {
    match verb {
        HostVerb::Clean(args) => clean(context, args),
    }
}

fn clean(context: &Context, args: &CleanArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let state_dir = context.state_dir(&config)?;
    // Held to the end: a daemon that runs has it, and none starts meanwhile.
    let _state = daemon::lock_state(&state_dir).map_err(|failure| failure.while_doing(WHAT))?;
    let cleaned = block_on(async {
        let cleaned = host::clean(&state_dir, &config.interface.name, args.keep_closed).await;
        cleaned.map_err(|error| {
            let allowed = !matches!(error, HostError::NotAllowed { .. });
            let failed = if allowed { Failure::failed } else { Failure::refused };
            failed(if allowed { "host" } else { "privilege" }, WHAT, &error, error.hint())
        })
    })?;
    if !cleaned.failed.is_empty() {
        let hint = "run it as root; `ip rule`, `ip route show table all` and `nft list ruleset` show what is left";
        return Err(Failure::failed("host", "the host was cleaned in part", cleaned.failed.join("\n"), hint));
    }
    let json = json!({"schema": SCHEMA, "removed": cleaned.removed, "kept": cleaned.kept});
    context.output.done(&json, |_| told(&cleaned));
    Ok(())
}

fn told(cleaned: &Cleaned) -> String {
    let removed = cleaned.removed.iter().map(|what| format!("removed: {what}"));
    let kept = cleaned.kept.iter().map(|what| format!("kept: {what}"));
    let lines: Vec<String> = removed.chain(kept).collect();
    if lines.is_empty() { "nothing was left to remove".to_owned() } else { lines.join("\n") }
}
