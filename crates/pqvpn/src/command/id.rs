// SPDX-License-Identifier: MIT OR Apache-2.0
//! `id`: who this node is; the identity is made when there is none.

use std::{path::Path, time::Duration};

use pqvpn_api::{SCHEMA, model::Identity};
use pqvpn_node::overlay::Overlay;
use tokio::time::timeout;

use super::block_on;
use crate::{cli::PassphraseArgs, context::Context, failure::Failure, identity};

/// A daemon that hangs must not make `id` hang.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let config = context.config_if_any()?;
    let state_dir = context.state_dir(&config)?;
    let id = match running(context, &state_dir) {
        Some(id) => id,
        None => {
            let keystore = identity::keystore(&state_dir);
            let (identity, created) = identity::load_or_create(&keystore, args.passphrase_file.as_deref())?;
            if created {
                context.output.remark(&format!("new identity in {}", keystore.path().display()));
            }
            Identity {
                schema: SCHEMA,
                peer_id: identity.peer_id().to_string(),
                name: config.name(),
                addresses: Overlay::plan(&config, identity.peer_id()).own,
                fingerprint: identity.public().fingerprint(),
                state_dir: None,
            }
        }
    };
    context.output.result(&id, |_| {
        let addresses: Vec<String> = id.addresses.iter().map(ToString::to_string).collect();
        format!(
            "name         {}\npeer id      {}\naddresses    {}\nfingerprint  {}",
            id.name,
            id.peer_id,
            addresses.join(" "),
            id.fingerprint
        )
    });
    Ok(())
}

/// What the daemon of this state directory says: it knows the addresses in use, and an ephemeral key is nowhere else.
fn running(context: &Context, state_dir: &Path) -> Option<Identity> {
    let client = context.client().ok()?;
    let answer = block_on(async { Ok(timeout(PATIENCE, client.identity()).await) }).ok()?;
    let id = answer.ok()?.ok()?;
    (id.state_dir.as_deref() == Some(state_dir)).then_some(Identity { state_dir: None, ..id })
}
