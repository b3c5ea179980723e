// SPDX-License-Identifier: MIT OR Apache-2.0
//! `keys rotate`: the running node goes on with another key.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use pqvpn_api::{
    client::Client,
    error::{ApiError, Code},
    model::{RotateRequest, Rotated, RotatedIn, SecretBytes},
};

use crate::{
    context::Context,
    failure::Failure,
    output::{Output, Tone, printable},
    passphrase,
};

pub(super) async fn run(context: &Context, yes: bool, passphrase_file: Option<&Path>) -> Result<(), Failure> {
    let client = context.client()?;
    // Without a daemon there is nothing to ask about.
    let now = client.identity().await?;
    if !yes {
        confirm(&now.peer_id, passphrase_file)?;
    }
    let rotated = ask(&client, passphrase_file).await?;
    context.output.done(&rotated, |output| told(output, &rotated));
    Ok(())
}

/// Asks the daemon, with a passphrase only where the keystore turns out to have one.
async fn ask(client: &Client, passphrase_file: Option<&Path>) -> Result<Rotated, Failure> {
    let given = passphrase::given_bytes(passphrase_file)?;
    let request = |secret: Option<&[u8]>| RotateRequest { passphrase: secret.map(SecretBytes::new) };
    match client.keys_rotate(&request(given.as_ref().map(|secret| secret.as_slice()))).await {
        Err(ApiError { code: Code::Passphrase, .. }) if given.is_none() => {
            let secret = passphrase::existing_bytes(None, "the keystore")?;
            Ok(client.keys_rotate(&request(Some(&secret))).await?)
        }
        answer => Ok(answer?),
    }
}

fn confirm(peer_id: &str, passphrase_file: Option<&Path>) -> Result<(), Failure> {
    let refused =
        |why: &str| Failure::refused("not-confirmed", "the key was not rotated", why, "`--yes` says that it is meant");
    let stdin_is_taken = passphrase_file == Some(Path::new("-"));
    if stdin_is_taken || !io::stdin().is_terminal() {
        return Err(refused("nobody confirmed that this node shall have another PeerID"));
    }
    let _gone = write!(
        io::stderr(),
        "This node is {peer_id}.\nIt goes on under a new PeerID and new addresses, in the same networks under the same \
         names.\nSessions end and begin again; whoever pins this node must be given the new PeerID.\nType `yes` to go on: "
    );
    let mut line = String::new();
    let _read = io::stdin().lock().read_line(&mut line);
    if line.trim() == "yes" { Ok(()) } else { Err(refused("it was not confirmed")) }
}

fn told(output: &Output, rotated: &Rotated) -> String {
    let mut text = format!(
        "this node is {} now\nit was {}; that key opens nothing any more\n",
        output.tone(Tone::Good, &rotated.peer_id),
        rotated.old_peer_id
    );
    for network in &rotated.networks {
        text += &line(network);
    }
    if !rotated.addresses.is_empty() {
        let addresses: Vec<String> = rotated.addresses.iter().map(ToString::to_string).collect();
        text += &format!("its addresses are {} now\n", addresses.join("  "));
    }
    text + "Whoever pins this node, in [[peers]] or in a list of bootstrap nodes, has to write the new PeerID there"
}

fn line(network: &RotatedIn) -> String {
    let RotatedIn { network, name, told, others, admin, void_invites } = network;
    let rights = if *admin { ", an admin as before" } else { "" };
    let mut line =
        format!("{}: still {}{rights}; {told} of {others} members have heard it", printable(network), printable(name));
    if told < others {
        line += ", the others will when they meet it";
    }
    if *void_invites > 0 {
        line += &format!("; its invites are void ({void_invites}): make new ones");
    }
    line + "\n"
}
