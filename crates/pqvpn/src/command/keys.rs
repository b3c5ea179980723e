// SPDX-License-Identifier: MIT OR Apache-2.0
//! `keys`: look after the node's key.

mod rotate;

use std::path::Path;

use pqvpn_node::store::KeystoreFile;
use serde_json::json;

use super::beside::Beside;
use crate::{
    cli::KeysVerb,
    context::{Context, absolute_path},
    failure::Failure,
    identity, passphrase,
};

const BACKUP_OPTION: &str = "--backup-passphrase-file";

pub(crate) fn run(context: &Context, verb: &KeysVerb) -> Result<(), Failure> {
    let config = context.config_if_any()?;
    let state_dir = context.state_dir(&config)?;
    let keystore = identity::keystore(&state_dir);
    match verb {
        KeysVerb::Rotate { yes, passphrase } => {
            super::block_on(rotate::run(context, &state_dir, *yes, passphrase.passphrase_file.as_deref()))
        }
        KeysVerb::Show(args) => show(context, &state_dir, &keystore, args.passphrase_file.as_deref()),
        KeysVerb::Backup { file, backup_passphrase_file, passphrase } => {
            let own = passphrase.passphrase_file.as_deref();
            backup(context, &keystore, own, &absolute_path(file), backup_passphrase_file.as_deref())
        }
        KeysVerb::Restore { file, backup_passphrase_file, force, passphrase } => {
            let own = passphrase.passphrase_file.as_deref();
            restore(context, &keystore, own, &absolute_path(file), backup_passphrase_file.as_deref(), *force)
        }
        KeysVerb::Passphrase { new_passphrase_file, remove, passphrase } => {
            let own = passphrase.passphrase_file.as_deref();
            change_passphrase(context, &keystore, own, new_passphrase_file.as_deref(), *remove)
        }
    }
}

fn show(context: &Context, state_dir: &Path, keystore: &KeystoreFile, own: Option<&Path>) -> Result<(), Failure> {
    keystore.refuse_while_rotating().map_err(|error| Failure::from(error).while_doing("the key was not shown"))?;
    let identity = identity::load(keystore, own)?;
    let encrypted = keystore.is_encrypted()?;
    let fingerprint = identity.public().fingerprint();
    let path = keystore.path();
    let beside = Beside::ask(context);
    let json = json!({
        "schema": pqvpn_api::SCHEMA, "peer_id": identity.peer_id().to_string(), "fingerprint": fingerprint,
        "algorithm": "MLDSA87-Ed25519", "path": path, "encrypted": encrypted,
        "daemon": beside.as_ref().map(Beside::told),
    });
    context.output.result(&json, |_| {
        let kept = if encrypted { "under a passphrase" } else { "without a passphrase" };
        format!(
            "peer id      {}\nfingerprint  {fingerprint}\nalgorithm    MLDSA87-Ed25519\nkept in      {} ({kept})",
            identity.peer_id(),
            path.display()
        )
    });
    let remark = beside.and_then(|beside| beside.remark(&identity.peer_id().to_string(), state_dir));
    remark.iter().for_each(|remark| context.output.remark(remark));
    Ok(())
}

fn backup(
    context: &Context,
    keystore: &KeystoreFile,
    own: Option<&Path>,
    to: &Path,
    backup_file: Option<&Path>,
) -> Result<(), Failure> {
    let unlocked = identity::unlock(keystore, own)?;
    let backup_passphrase = passphrase::new(backup_file, (BACKUP_OPTION, "the backup"))?;
    keystore
        .backup(unlocked.as_ref(), to, &backup_passphrase)
        .map_err(|error| Failure::from(error).while_doing("no backup was written"))?;
    let json = json!({"schema": pqvpn_api::SCHEMA, "path": to});
    context.output.done(&json, |_| {
        format!("wrote {}; it is worth nothing without its passphrase, so keep both, apart", to.display())
    });
    Ok(())
}

fn restore(
    context: &Context,
    keystore: &KeystoreFile,
    own: Option<&Path>,
    from: &Path,
    backup_file: Option<&Path>,
    force: bool,
) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("no key was restored");
    if !force && keystore.exists()? {
        return Err(Failure::failed(
            "exists",
            "no key was restored",
            format!("{} exists already", keystore.path().display()),
            "back it up first (`pqvpn keys backup FILE`), then `--force`; or name another `--state DIR`",
        ));
    }
    let encrypted = KeystoreFile::is_backup_encrypted(from).map_err(failed)?;
    // One that cannot be read is replaced all the same.
    let was_encrypted = encrypted || keystore.is_encrypted().unwrap_or(false);
    let backup_passphrase = if encrypted {
        Some(passphrase::existing(backup_file, (BACKUP_OPTION, &from.display().to_string()))?)
    } else {
        None
    };
    let new = passphrase::given(own)?;
    let seed = keystore.restore(from, backup_passphrase.as_ref(), new.as_ref(), force).map_err(failed)?;
    let peer_id = identity::from_seed(&seed)?.peer_id().to_string();
    let json =
        json!({"schema": pqvpn_api::SCHEMA, "peer_id": peer_id, "path": keystore.path(), "encrypted": new.is_some()});
    context.output.done(&json, |_| {
        let bare = if was_encrypted && new.is_none() {
            "\nkept without a passphrase; `pqvpn keys passphrase` sets one"
        } else {
            ""
        };
        format!("restored {peer_id}; a running daemon uses it from its next start{bare}")
    });
    Ok(())
}

fn change_passphrase(
    context: &Context,
    keystore: &KeystoreFile,
    own: Option<&Path>,
    new_file: Option<&Path>,
    remove: bool,
) -> Result<(), Failure> {
    let old = identity::unlock(keystore, own)?;
    let new = if remove { None } else { Some(passphrase::new(new_file, ("--new-passphrase-file", "the keystore"))?) };
    keystore
        .change_passphrase(old.as_ref(), new.as_ref())
        .map_err(|error| Failure::from(error).while_doing("the passphrase was not changed"))?;
    let json = json!({"schema": pqvpn_api::SCHEMA, "path": keystore.path(), "encrypted": new.is_some()});
    context.output.done(&json, |_| match new {
        Some(_) => "the key is kept under the new passphrase".into(),
        None => "the key is kept without a passphrase".into(),
    });
    Ok(())
}
