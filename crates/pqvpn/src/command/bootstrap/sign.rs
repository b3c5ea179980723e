// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap sign`: a reviewed file of entries becomes a list others may believe. Works without a daemon.

use pqvpn_api::SCHEMA;
use pqvpn_node::{bootstrap::ListDraft, store};
use serde_json::json;

use super::{entries, now_ms, read, refuse_existing};
use crate::{
    cli::SignArgs,
    context::{Context, absolute_path},
    failure::Failure,
    identity,
};

const WHAT: &str = "no list was signed";
/// Ending of a signed list.
const ENDING: &str = "list";
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

pub(super) fn run(context: &Context, args: &SignArgs) -> Result<(), Failure> {
    if [Some(&args.file), args.out.as_ref()].into_iter().flatten().any(|file| file.as_os_str() == "-") {
        let hint = "`pqvpn bootstrap export FILE` writes one to be signed";
        return Err(Failure::usage("usage", WHAT, "entries and list are files; `-` is none", hint));
    }
    let file = absolute_path(&args.file);
    let out = args.out.as_deref().map_or_else(|| file.with_extension(ENDING), absolute_path);
    if out == file {
        let why = format!("the list would replace {}", file.display());
        return Err(Failure::usage("same-file", WHAT, why, "name another file with `--out FILE`"));
    }
    let config = context.config_if_any()?;
    refuse_existing(WHAT, &out, args.force)?;
    let entries = entries(WHAT, &file, read(WHAT, &file)?)?;
    let keystore = identity::keystore(&context.state_dir(&config)?);
    let identity = identity::load(&keystore, args.passphrase.passphrase_file.as_deref())
        .map_err(|error| error.while_doing(WHAT))?;
    let issued_ms = now_ms();
    let expires_ms = issued_ms.saturating_add(u64::from(args.days).saturating_mul(DAY_MS));
    let count = entries.len();
    let draft = ListDraft { network: config.dht.network_id(), issued_ms, expires_ms, entries };
    let list = draft.sign(&identity).map_err(|error| Failure::failed("list", WHAT, error, "correct the file"))?;
    store::write_atomic(&out, list.as_bytes(), 0o644).map_err(|error| Failure::from(error).while_doing(WHAT))?;
    let json = json!({
        "schema": SCHEMA, "path": out, "signer": list.signer().to_string(), "entries": count,
        "issued_ms": issued_ms, "expires_ms": expires_ms,
    });
    context.output.done(&json, |_| {
        format!(
            "wrote {} with {count} nodes, fresh for {} days; others believe it with\n\
             bootstrap.signers = [\"{}\"], or once by `pqvpn bootstrap add --trust FILE`",
            out.display(),
            args.days,
            list.signer()
        )
    });
    Ok(())
}
