// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap add`: through the daemon, or straight onto the shelf when none runs.

use std::path::Path;

use pqvpn_api::{
    SCHEMA,
    error::Code,
    model::{BootstrapAddRequest, BootstrapAdded},
};
use pqvpn_node::bootstrap::{BootstrapEntry, ListError, Shelf, ShelfError};

use super::{entries, now_ms, read};
use crate::{
    cli::AddArgs,
    context::{Context, absolute_path},
    failure::Failure,
    output::{counted, printable},
};

const WHAT: &str = "no bootstrap node was added";
/// Scheme of an entry.
const SCHEME: &str = "pqvpn://";
/// First bytes of a signed list.
const LIST: &[u8] = b"PQVPN-LIST/";

/// What is to be added.
enum New {
    Entries(Vec<BootstrapEntry>),
    List(Vec<u8>),
}

pub(super) async fn run(context: &Context, args: &AddArgs) -> Result<(), Failure> {
    let new = what(&args.what)?;
    let added = match context.client()?.bootstrap_add(&request(&new, args.trust)).await {
        Err(error) if error.code == Code::NoDaemon => offline(context, &new, args.trust)?,
        answer => answer?,
    };
    context.output.done(&added, |_| {
        let mut text = match &added.signer {
            Some(signer) => format!("added a list of {signer}; {} in it were new", counted(added.added, "node")),
            None => entries_line(added.added, count(&new)),
        };
        if added.newly_trusted {
            text.push_str("\nits signer is believed from now on");
        }
        text.push_str(if added.tried { "\nthey are tried now" } else { "\nthey are tried when the DHT next starts" });
        text
    });
    if let Some(warning) = &added.warning {
        context.output.remark(&printable(warning));
    }
    Ok(())
}

fn what(text: &str) -> Result<New, Failure> {
    if text.starts_with(SCHEME) {
        return Ok(New::Entries(vec![entry(text)?]));
    }
    let path = absolute_path(Path::new(text));
    if !path.exists() {
        // A host and port is more likely meant than a file of that name.
        return entry(text).map(|entry| New::Entries(vec![entry]));
    }
    let bytes = read(WHAT, &path)?;
    if bytes.starts_with(LIST) { Ok(New::List(bytes)) } else { entries(WHAT, &path, bytes).map(New::Entries) }
}

fn entry(text: &str) -> Result<BootstrapEntry, Failure> {
    let hint = "`pqvpn id` on that node shows its PeerID; or name a file that exists";
    text.parse().map_err(|why: String| Failure::usage("entry", WHAT, why, hint))
}

fn request(new: &New, trust: bool) -> BootstrapAddRequest {
    match new {
        New::Entries(entries) => BootstrapAddRequest {
            entries: entries.iter().map(ToString::to_string).collect(),
            ..BootstrapAddRequest::default()
        },
        New::List(bytes) => BootstrapAddRequest {
            list: Some(data_encoding::BASE64.encode(bytes)),
            trust,
            ..BootstrapAddRequest::default()
        },
    }
}

/// Without a daemon the shelf is written here, to be read at the next start.
fn offline(context: &Context, new: &New, trust: bool) -> Result<BootstrapAdded, Failure> {
    let config = context.config()?;
    let state_dir = context.state_dir(&config)?;
    pqvpn_node::store::ensure_private_dir(&state_dir).map_err(|error| Failure::from(error).while_doing(WHAT))?;
    let shelf = Shelf::of(&config, &state_dir);
    let answer = |added| BootstrapAdded {
        schema: SCHEMA,
        added,
        tried: false,
        signer: None,
        newly_trusted: false,
        warning: None,
    };
    match new {
        New::Entries(entries) => Ok(answer(shelf.add_entries(entries).map_err(|error| refused(&error))?.len())),
        New::List(bytes) => {
            let added = shelf.add_list(bytes, trust, now_ms()).map_err(|error| refused(&error))?;
            Ok(BootstrapAdded {
                signer: Some(added.list.signer().to_string()),
                newly_trusted: added.newly_trusted,
                warning: added.freshness.warning(),
                ..answer(added.list.draft().entries.len())
            })
        }
    }
}

fn entries_line(added: usize, given: usize) -> String {
    match (added, given) {
        (0, _) => "nothing was added: all of it was known".to_owned(),
        (added, given) if added == given => format!("added {}", counted(added, "node")),
        (added, given) => format!("added {added} of {}; the rest was known", counted(given, "node")),
    }
}

fn refused(error: &ShelfError) -> Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong with a list, only another one helps")]
    match error {
        ShelfError::List(ListError::Signer(_)) => {
            let hint = "if you know the signer, `pqvpn bootstrap add --trust FILE` believes it from now on";
            Failure::refused("refused", WHAT, error, hint)
        }
        ShelfError::List(ListError::Superseded(_)) => {
            Failure::refused("refused", WHAT, error, "the newer one stays; nothing is to be done")
        }
        ShelfError::List(ListError::Network) => {
            Failure::refused("refused", WHAT, error, "ask for a list of the DHT this node is in")
        }
        ShelfError::List(_) => Failure::usage("list", WHAT, error, "ask its signer for the file again"),
        ShelfError::Full { .. } => Failure::failed(
            "full",
            WHAT,
            error,
            "`pqvpn bootstrap remove` makes room: `pqvpn bootstrap list` shows what there is",
        ),
        _ => Failure::failed("file", WHAT, error, "check the state directory, or give another with `--state DIR`"),
    }
}

const fn count(new: &New) -> usize {
    match new {
        New::Entries(entries) => entries.len(),
        New::List(_) => 0,
    }
}
