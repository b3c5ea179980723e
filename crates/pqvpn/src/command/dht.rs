// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht`: how this node is found and finds others.

mod record;
mod status;
mod table;

use std::{collections::BTreeSet, net::IpAddr};

use pqvpn_api::{
    client::Client,
    error::{ApiError, Code},
    model::{DhtContact, DhtEclipse, DhtLookup, DhtLookupRequest, NetRequest},
};

use serde::Serialize;

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
    let client = context.client()?;
    let of = |peer: String| DhtLookupRequest { peer: Some(peer), ..DhtLookupRequest::default() };
    let found = if args.key {
        let key = Some(args.target.clone());
        client.dht_lookup(&DhtLookupRequest { key, ..DhtLookupRequest::default() }).await?
    } else {
        match client.dht_lookup(&of(args.target.clone())).await {
            Err(error) if error.code == Code::UnknownPeer => {
                client.dht_lookup(&of(member(&client, &args.target, error).await?)).await?
            }
            answer => answer?,
        }
    };
    if found.lookup.answered == 0 {
        return Err(nobody_answered("no node was found", &found.lookup, &found));
    }
    context.output.result(&found, |output| {
        let lookup = &found.lookup;
        format!("target {}\n{}{}", lookup.target, contacts(output, "SHARED", &lookup.closest), summary(output, lookup))
    });
    Ok(())
}

/// The PeerID of a member by its name or overlay address: this node itself, and those of a network that is down, are no peers. `otherwise` is
/// why nobody was found, where no member is called so either.
async fn member(client: &Client, name: &str, otherwise: ApiError) -> Result<String, ApiError> {
    let lower = name.to_ascii_lowercase();
    let address: Option<IpAddr> = name.parse().ok();
    let mut fits = BTreeSet::new();
    for network in client.networks().await?.networks {
        // One that this node only waits for has no members to show.
        let Ok(all) = client.members(&NetRequest { network: Some(network.id) }).await else { continue };
        for member in all.members {
            let full = format!("{}.{}", member.name, network.name);
            let has_address = address.is_some_and(|address| member.addresses.contains(&address));
            if member.name == lower || full == lower || has_address {
                fits.insert((member.peer_id, full));
            }
        }
    }
    let peers: BTreeSet<&String> = fits.iter().map(|(peer, _)| peer).collect();
    match (peers.first(), peers.len()) {
        (None, _) => Err(otherwise),
        (Some(one), 1) => Ok((*one).clone()),
        (Some(_), _) => {
            let why = format!("members of several networks are called {name:?}");
            Err(ApiError::new(Code::AmbiguousPeer, otherwise.what, why, apart(&fits)))
        }
    }
}

/// How to say which of several members is meant, of whom PeerID and NAME.NETWORK are given: networks may have one name, too.
fn apart(fits: &BTreeSet<(String, String)>) -> String {
    let names: BTreeSet<&str> = fits.iter().map(|(_, full)| full.as_str()).collect();
    if names.len() == fits.len() {
        return format!("say which: {}", names.into_iter().collect::<Vec<_>>().join(" or "));
    }
    let peers: BTreeSet<&str> = fits.iter().map(|(peer, _)| peer.as_str()).collect();
    format!("give the PeerID: {}", peers.into_iter().collect::<Vec<_>>().join(" or "))
}

/// Others were asked, and none of them said anything: not even that there is nothing. Scripts get the whole answer.
fn nobody_answered(what: &str, lookup: &DhtLookup, answer: &impl Serialize) -> Failure {
    let why = format!("asked {}, none answered", nodes(lookup.asked as usize));
    let failure = Failure::failed("no-answer", what, why, "look at `pqvpn dht status`");
    Failure { json: serde_json::to_value(answer).ok().map(Box::new), ..failure }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_name_are_told_apart_by_what_differs() {
        let hint = |fits: &[(&str, &str)]| {
            apart(&fits.iter().map(|(peer, full)| ((*peer).to_owned(), (*full).to_owned())).collect())
        };
        assert_eq!(hint(&[("07", "nas.home"), ("09", "nas.work")]), "say which: nas.home or nas.work");
        assert_eq!(hint(&[("07", "nas.home"), ("09", "nas.home")]), "give the PeerID: 07 or 09");
    }
}
