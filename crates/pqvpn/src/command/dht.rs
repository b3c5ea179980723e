// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht`: how this node is found and finds others.

mod record;
mod status;
mod table;

use pqvpn_api::model::{DhtContact, DhtEclipse, DhtLookup, DhtLookupRequest};

use crate::{
    cli::{DhtVerb, LookupArgs},
    context::Context,
    failure::Failure,
    output::{Output, Tone, counted, table},
};

pub(crate) async fn run(context: &Context, verb: &DhtVerb) -> Result<(), Failure> {
    match verb {
        DhtVerb::Status => status::run(context).await,
        DhtVerb::Get(args) => record::get(context, args).await,
        DhtVerb::Put(args) => record::put(context, args).await,
        DhtVerb::Lookup(args) => lookup(context, args).await,
        DhtVerb::Table => table::run(context).await,
    }
}

async fn lookup(context: &Context, args: &LookupArgs) -> Result<(), Failure> {
    let target = Some(args.target.clone());
    let request = if args.key {
        DhtLookupRequest { key: target, ..DhtLookupRequest::default() }
    } else {
        DhtLookupRequest { peer: target, ..DhtLookupRequest::default() }
    };
    let found = context.client()?.dht_lookup(&request).await?;
    if found.lookup.answered == 0 {
        let why = format!("asked {}, none answered", nodes(found.lookup.asked as usize));
        let failure = Failure::failed("no-answer", "no node was found", why, "look at `pqvpn dht status`");
        return Err(Failure { json: serde_json::to_value(&found).ok().map(Box::new), ..failure });
    }
    context.output.result(&found, |output| {
        let lookup = &found.lookup;
        format!("target {}\n{}{}", lookup.target, contacts(output, "SHARED", &lookup.closest), summary(output, lookup))
    });
    Ok(())
}

/// One row per contact; `bits` names the column of shared bits.
fn contacts(output: &Output, bits: &str, contacts: &[DhtContact]) -> String {
    if contacts.is_empty() {
        return String::new();
    }
    let columns = ["NODE", "PEER", bits, "ADDRESS"];
    let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
    rows.extend(contacts.iter().map(|contact| {
        let address = contact.addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string);
        let cells = [short(&contact.node_id), contact.peer_id.clone(), contact.prefix_bits.to_string(), address];
        cells.map(|cell| (Tone::Plain, cell)).to_vec()
    }));
    table(output, &rows)
}

/// Who answered, how many rounds it took, how long, and what the surroundings look like.
fn summary(output: &Output, lookup: &DhtLookup) -> String {
    let rounds = if lookup.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", lookup.rounds) };
    format!(
        "{} of {} asked answered, {} did not; {rounds}, {:.1} ms; surroundings {}\n",
        lookup.answered,
        nodes(lookup.asked as usize),
        lookup.failed,
        lookup.elapsed_ms,
        eclipse(output, lookup.eclipse),
    )
}

/// The verdict in a word.
fn eclipse(output: &Output, verdict: DhtEclipse) -> String {
    match verdict {
        DhtEclipse::Normal => output.tone(Tone::Good, "normal"),
        DhtEclipse::Suspect => output.tone(Tone::Warn, "suspect: denser than 99 % of honest ones"),
        DhtEclipse::Eclipse => output.tone(Tone::Bad, "besieged: denser than 99.9 % of honest ones"),
    }
}

/// A number of nodes, in words.
fn nodes(count: usize) -> String {
    counted(count, "node")
}

/// The first digits of a point: enough to tell nodes apart by eye.
fn short(point: &str) -> String {
    point.chars().take(16).collect()
}
