// SPDX-License-Identifier: MIT OR Apache-2.0
//! `id`: who this node is; the identity is made when there is none.

use std::net::IpAddr;

use pqvpn_api::{
    SCHEMA,
    model::{Identity, NetworkInfo},
};
use pqvpn_node::overlay::Overlay;
use serde::Serialize;

use super::beside::{Beside, Told};
use crate::{cli::PassphraseArgs, context::Context, failure::Failure, identity, output::printable};

pub(crate) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let config = context.config_if_any()?;
    let state_dir = context.state_dir(&config)?;
    let beside = Beside::ask(context);
    let daemon = beside.as_ref().map(Beside::told);
    let shown = match &beside {
        // It knows the addresses in use, and an ephemeral key is nowhere else.
        Some(running) if running.has_state_in(&state_dir) => {
            let Beside { id, networks, .. } = running;
            let networks = networks.clone().map(|all| all.into_iter().map(InNetwork::from).collect());
            Shown { id: Identity { state_dir: None, ..id.clone() }, networks, daemon }
        }
        _ => {
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
            Shown { id, networks: None, daemon }
        }
    };
    context.output.result(&shown, |_| render(&shown));
    let remark = beside.and_then(|beside| beside.remark(&shown.id.peer_id, &state_dir));
    remark.iter().for_each(|remark| context.output.remark(remark));
    Ok(())
}

/// Who this node is, and as whom it is in each network, where a daemon runs that knows.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    id: Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<InNetwork>>,
    /// The daemon that runs, whether it is this node or another.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<Told>,
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
    let Shown { id, networks, .. } = shown;
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
