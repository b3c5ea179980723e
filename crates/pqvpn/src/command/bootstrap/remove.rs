// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap remove`: through the daemon, or straight off the shelf when none runs.

use pqvpn_api::{
    SCHEMA,
    error::Code,
    model::{BootstrapRemoveRequest, BootstrapRemoved},
};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::bootstrap::{BootstrapEntry, Shelf, ShelfError};

use crate::{
    cli::RemoveArgs,
    context::Context,
    failure::Failure,
    output::{counted, printable},
};

const WHAT: &str = "no bootstrap node was removed";

pub(super) async fn run(context: &Context, args: &RemoveArgs) -> Result<(), Failure> {
    let (peer, entry) = parse(&args.what)?;
    let request = BootstrapRemoveRequest { what: args.what.clone() };
    let removed = match context.client()?.bootstrap_remove(&request).await {
        Err(error) if error.code == Code::NoDaemon => offline(context, &peer, entry.as_ref())?,
        answer => answer?,
    };
    context.output.done(&removed, |_| {
        let mut parts: Vec<String> =
            removed.entries.iter().map(|entry| format!("removed {}", printable(entry))).collect();
        if removed.list {
            parts.push(format!("removed the list of {peer}"));
        }
        if removed.distrusted {
            parts.push("its signer is not believed any more".to_owned());
        }
        parts.extend(removed.dropped.map(|dropped| match dropped {
            0 => "something else names it as well: it is still tried (`pqvpn bootstrap list`)".to_owned(),
            dropped => format!("{} not tried any more", counted(dropped, "node")),
        }));
        parts.join("\n")
    });
    Ok(())
}

fn parse(text: &str) -> Result<(PeerId, Option<BootstrapEntry>), Failure> {
    if let Ok(peer) = text.to_ascii_lowercase().parse() {
        return Ok((peer, None));
    }
    let entry: Result<BootstrapEntry, String> = text.parse();
    let hint = "`pqvpn bootstrap list` shows what there is; 64 hex digits of a PeerID remove all of it";
    entry.map(|entry| (entry.id, Some(entry))).map_err(|why| Failure::usage("entry", WHAT, why, hint))
}

fn offline(context: &Context, peer: &PeerId, entry: Option<&BootstrapEntry>) -> Result<BootstrapRemoved, Failure> {
    let config = context.config()?;
    let shelf = Shelf::of(&config, &context.state_dir(&config)?);
    let removed = shelf.remove(peer, entry).map_err(|error| {
        if matches!(error, ShelfError::NotHere { .. }) {
            let hint = "`pqvpn bootstrap list` shows what there is, while the daemon runs";
            Failure::failed("not-found", WHAT, error, hint)
        } else {
            Failure::failed("file", WHAT, error, "check the state directory, or give another with `--state DIR`")
        }
    })?;
    Ok(BootstrapRemoved {
        schema: SCHEMA,
        entries: removed.entries.iter().map(ToString::to_string).collect(),
        list: removed.list.is_some(),
        distrusted: removed.distrusted,
        dropped: None,
    })
}
