// SPDX-License-Identifier: MIT OR Apache-2.0
//! `id`: who this node is; the identity is made when there is none.

use std::{net::IpAddr, path::Path, time::Duration};

use pqvpn_api::{
    SCHEMA,
    model::{Identity, NetworkInfo},
};
use pqvpn_node::overlay::Overlay;
use tokio::time::timeout;

use serde::Serialize;

use super::block_on;
use crate::{cli::PassphraseArgs, context::Context, failure::Failure, identity, output::printable};

/// A daemon that hangs must not make `id` hang.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let config = context.config_if_any()?;
    let state_dir = context.state_dir(&config)?;
    let shown = match running(context, &state_dir) {
        Some(shown) => shown,
        None => {
            let keystore = identity::keystore(&state_dir);
            keystore
                .refuse_while_rotating()
                .map_err(|error| Failure::from(error).while_doing("the identity was not shown"))?;
            let (identity, created) = identity::load_or_create(&keystore, args.passphrase_file.as_deref())?;
            if created {
                context.output.remark(&format!("new identity in {}", keystore.path().display()));
            }
            let id = Identity {
                schema: SCHEMA,
                peer_id: identity.peer_id().to_string(),
                name: config.name(),
                addresses: Overlay::plan(&config, identity.peer_id()).own,
                fingerprint: identity.public().fingerprint(),
                state_dir: None,
            };
            Shown { id, networks: None }
        }
    };
    context.output.result(&shown, |_| render(&shown));
    Ok(())
}

/// Who this node is, and as whom it is in each network, where a daemon runs that knows.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    id: Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<InNetwork>>,
}

/// What this node is in one network.
#[derive(Debug, Serialize)]
struct InNetwork {
    name: String,
    own_name: String,
    addresses: Vec<IpAddr>,
}

impl From<NetworkInfo> for InNetwork {
    fn from(network: NetworkInfo) -> Self {
        let NetworkInfo { name, own_name, addresses, .. } = network;
        Self { name, own_name, addresses }
    }
}

fn render(shown: &Shown) -> String {
    let Shown { id, networks } = shown;
    let joined = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("name         {}\npeer id      {}\n", printable(&id.name), id.peer_id);
    let networks = networks.as_deref().unwrap_or_default();
    for network in networks.iter().filter(|network| !network.addresses.is_empty()) {
        let (name, own) = (printable(&network.name), printable(&network.own_name));
        text.push_str(&format!("in {name:<9} {}, as {own}\n", joined(&network.addresses)));
    }
    // Those that no network gives are for pinned peers.
    let in_networks = |address: &&IpAddr| networks.iter().any(|network| network.addresses.contains(address));
    let pinned: Vec<IpAddr> = id.addresses.iter().filter(|address| !in_networks(address)).copied().collect();
    if !pinned.is_empty() {
        text.push_str(&format!("for pinned   {}\n", joined(&pinned)));
    }
    text + &format!("fingerprint  {}", id.fingerprint)
}

/// What the daemon of this state directory says: it knows the addresses in use, and an ephemeral key is nowhere else.
fn running(context: &Context, state_dir: &Path) -> Option<Shown> {
    let client = context.client().ok()?;
    let asked = async { Ok(timeout(PATIENCE, async { (client.identity().await, client.networks().await) }).await) };
    let (id, networks) = block_on(asked).ok()?.ok()?;
    let id = id.ok().filter(|id| id.state_dir.as_deref() == Some(state_dir))?;
    let networks = networks.ok().map(|all| all.networks.into_iter().map(InNetwork::from).collect());
    Some(Shown { id: Identity { state_dir: None, ..id }, networks })
}
