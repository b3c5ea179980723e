// SPDX-License-Identifier: MIT OR Apache-2.0
//! `keys rotate`: the node goes on with another key, whether it runs or not.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use pqvpn_api::{
    client::Client,
    error::{ApiError, Code},
    model::{RotateRequest, Rotated, RotatedIn, SecretBytes},
    server::because,
};
use pqvpn_crypto::identity::Identity;
use pqvpn_node::{
    handle::NodeError,
    membership::{Interrupted, RotationError, finish_rotation},
    supervisor::rotate_at_rest,
};

use crate::{
    command::daemon,
    context::Context,
    failure::Failure,
    identity,
    output::{Output, Tone, printable},
    passphrase,
};

pub(super) async fn run(
    context: &Context,
    state_dir: &Path,
    yes: bool,
    passphrase_file: Option<&Path>,
) -> Result<(), Failure> {
    let client = context.client()?;
    let running = match client.identity().await {
        // A state directory that is named is meant, whoever else runs.
        Ok(now) if context.means_other_state(state_dir, now.state_dir.as_deref()) => None,
        Ok(now) => Some(now),
        Err(error) if error.code == Code::NoDaemon => None,
        Err(error) => return Err(error.into()),
    };
    let (rotated, was_interrupted) = match running {
        Some(now) => {
            if !yes {
                confirm(&now.peer_id, passphrase_file)?;
            }
            (ask(&client, passphrase_file).await?, false)
        }
        None => at_rest(state_dir, yes, passphrase_file).await?,
    };
    context.output.done(&rotated, |output| told(output, &rotated, was_interrupted));
    Ok(())
}

/// Rotates the key of a node that does not run. One that was interrupted is finished instead, which `true` says: to go on
/// would be to rotate a key that nobody has confirmed, and to lose the one before.
async fn at_rest(state_dir: &Path, yes: bool, passphrase_file: Option<&Path>) -> Result<(Rotated, bool), Failure> {
    const WHAT: &str = "the key was not rotated";
    let failed = |error: RotationError| Failure::from(because(WHAT)(NodeError::Rotation(error)));
    let keystore = identity::keystore(state_dir);
    if !keystore.exists()? {
        return Err(Failure::failed(
            "no-key",
            WHAT,
            format!("there is none in {}", state_dir.display()),
            "`pqvpn id` makes one; or name another `--state DIR`",
        ));
    }
    // Also says whether it is ours, before anything is made beside it.
    let passphrase = identity::unlock(&keystore, passphrase_file).map_err(|failure| failure.while_doing(WHAT))?;
    let _held = daemon::lock_for(state_dir).map_err(|failure| Failure {
        hint: "without `--socket` it is the daemon that rotates it; else stop that one".to_owned(),
        ..failure.while_doing(WHAT)
    })?;
    let own = || {
        let seed = keystore.load(passphrase.as_ref()).map_err(|error| Failure::from(error).while_doing(WHAT))?;
        identity::from_seed(&seed)
    };
    let now = own()?;
    if finish_rotation(state_dir, &keystore).map_err(failed)? == Some(Interrupted::Finished) {
        return Ok((finished(&now, &own()?), true));
    }
    if !yes {
        confirm(&now.peer_id().to_string(), passphrase_file)?;
    }
    let report = rotate_at_rest(state_dir, keystore, passphrase, now.peer_id()).await.map_err(failed)?;
    Ok((report.into(), false))
}

/// What became of a rotation that was interrupted; its networks were told what there was to tell when it was decided.
fn finished(old: &Identity, new: &Identity) -> Rotated {
    Rotated {
        schema: pqvpn_api::SCHEMA,
        old_peer_id: old.peer_id().to_string(),
        peer_id: new.peer_id().to_string(),
        fingerprint: new.public().fingerprint(),
        addresses: Vec::new(),
        networks: Vec::new(),
    }
}

/// Asks the daemon, with a passphrase only where the keystore turns out to have one.
async fn ask(client: &Client, passphrase_file: Option<&Path>) -> Result<Rotated, Failure> {
    let given = passphrase::given_bytes(passphrase_file)?;
    let request = |secret: Option<&[u8]>| RotateRequest { passphrase: secret.map(SecretBytes::new) };
    match client.keys_rotate(&request(given.as_ref().map(|secret| secret.as_slice()))).await {
        Err(ApiError { code: Code::Passphrase, .. }) if given.is_none() => {
            let secret = passphrase::existing_bytes(None, (identity::PASSPHRASE_OPTION, "the keystore"))?;
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

fn told(output: &Output, rotated: &Rotated, was_interrupted: bool) -> String {
    let before = "a rotation that was interrupted is finished; for another key run `pqvpn keys rotate` again\n";
    let mut text = if was_interrupted { before.to_owned() } else { String::new() };
    text += &format!(
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
