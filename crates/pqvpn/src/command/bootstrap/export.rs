// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap export`: nodes this one has met in person, as entries to review and sign.
//!
//! Only who answered under its own key gets on the list, and no subnet gets more than two places on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use pqvpn_api::{
    SCHEMA,
    model::{Bootstrap, DhtTable, DoorState},
};
use pqvpn_node::{
    bootstrap::{BootstrapEntry, MAX_ENTRIES, entries_to_text},
    config::Endpoint,
    store,
};
use serde_json::json;

use super::{now_ms, refuse_existing};
use crate::{
    cli::ExportArgs,
    context::{Context, absolute_path},
    failure::Failure,
};

const WHAT: &str = "nothing was exported";
/// A door that has not answered for so long, in ms, is not vouched for.
const RECENT_MS: u64 = 7 * 86_400_000;
/// Places for one subnet: /24, or /48 for IPv6.
const PER_SUBNET: usize = 2;

pub(super) async fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    let path = args.file.as_deref().filter(|file| *file != Path::new("-")).map(absolute_path);
    path.iter().try_for_each(|path| refuse_existing(WHAT, path, args.force))?;
    let client = context.client()?;
    let entries = verified(&client.bootstrap().await?, &client.dht_table().await?, now_ms());
    if entries.is_empty() {
        return Err(Failure::failed(
            "nothing-verified",
            WHAT,
            "this node has met nobody yet",
            "wait until `pqvpn dht status` says joined",
        ));
    }
    let head = "# Nodes that answered this one under their own keys. Review them, then `pqvpn bootstrap sign FILE`.\n";
    let text = format!("{head}{}", entries_to_text(&entries));
    if let Some(path) = &path {
        store::write_atomic(path, text.as_bytes(), 0o644).map_err(|error| Failure::from(error).while_doing(WHAT))?;
    }
    let listed: Vec<String> = entries.iter().map(ToString::to_string).collect();
    let json = json!({"schema": SCHEMA, "path": path, "entries": listed});
    match path {
        Some(path) => context.output.done(&json, |_| {
            let path = path.display();
            let nodes = if listed.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", listed.len()) };
            format!("wrote {nodes} to {path}; review them, then `pqvpn bootstrap sign {path}`")
        }),
        None => context.output.result(&json, |_| text),
    }
    Ok(())
}

/// Doors that answered lately, then the table, most recently seen first; one entry per node.
fn verified(known: &Bootstrap, table: &DhtTable, now_ms: u64) -> Vec<BootstrapEntry> {
    let recently = |verified: Option<u64>| verified.is_some_and(|at| now_ms.saturating_sub(at) <= RECENT_MS);
    let doors = known
        .doors
        .iter()
        .filter(|door| match door.state {
            DoorState::Working => true,
            DoorState::Untried => recently(door.verified_ms),
            DoorState::Failed => false,
        })
        // What a door is said to be at may be wrong; where its handshake succeeded is not.
        .filter_map(|door| entry(&door.peer_id, &door.answered_at?.to_string()));
    let failed = known.doors.iter().filter(|door| door.state == DoorState::Failed);
    let failed: BTreeSet<&str> = failed.map(|door| door.peer_id.as_str()).collect();
    let mut met: Vec<_> = table
        .buckets
        .iter()
        .flat_map(|bucket| &bucket.contacts)
        .filter(|contact| !failed.contains(contact.peer_id.as_str()))
        .filter_map(|contact| Some((contact.seen_s?, contact)))
        .collect();
    met.sort_by(|a, b| a.0.total_cmp(&b.0));
    let met =
        met.into_iter().filter_map(|(_, contact)| entry(&contact.peer_id, &contact.addresses.first()?.to_string()));
    let (mut seen, mut subnets) = (BTreeSet::new(), BTreeMap::<Vec<u8>, usize>::new());
    let mut has_place = |entry: &BootstrapEntry| {
        let Endpoint::Address(address) = &entry.endpoint else { return true };
        let taken = subnets.entry(subnet(address.ip())).or_default();
        *taken += 1;
        *taken <= PER_SUBNET
    };
    doors.chain(met).filter(|entry| seen.insert(entry.id) && has_place(entry)).take(MAX_ENTRIES).collect()
}

fn entry(peer: &str, endpoint: &str) -> Option<BootstrapEntry> {
    Some(BootstrapEntry { id: peer.parse().ok()?, endpoint: endpoint.parse().ok()? })
}

fn subnet(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[..3].to_vec(),
        IpAddr::V6(ip) => ip.octets()[..6].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_api::model::{DhtBucket, DhtContact, Door};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn id(number: u8) -> String {
        format!("{number:02x}").repeat(32)
    }

    fn door(number: u8, state: DoorState, verified_ms: Option<u64>) -> Door {
        Door {
            peer_id: id(number),
            endpoints: vec![format!("seed{number}.example:1"), "second.example:1".into()],
            sources: vec!["config".into()],
            expires_ms: None,
            state,
            age_s: None,
            why: None,
            verified_ms,
            answered_at: Some(format!("203.0.{number}.1:1").parse().unwrap()),
        }
    }

    fn contact(number: u8, address: &str, seen_s: Option<f64>) -> DhtContact {
        let addresses = vec![address.parse().unwrap()];
        DhtContact { peer_id: id(number), node_id: id(number), addresses, prefix_bits: 0, seen_s }
    }

    fn exported(doors: Vec<Door>, contacts: Vec<DhtContact>) -> Vec<String> {
        let known = Bootstrap { schema: 1, enabled: true, doors, lists: Vec::new() };
        let buckets = vec![DhtBucket { prefix_bits: 0, contacts, replacements: 0 }];
        let table = DhtTable { schema: 1, own: None, buckets };
        let short = |entry: &BootstrapEntry| format!("{} {}", &entry.id.to_string()[..2], entry.endpoint);
        verified(&known, &table, NOW_MS).iter().map(short).collect()
    }

    #[test]
    fn only_who_answered_under_its_own_key_is_listed() {
        let doors = vec![
            door(1, DoorState::Working, None),
            door(2, DoorState::Failed, None),
            door(3, DoorState::Untried, Some(NOW_MS - RECENT_MS)),
            door(4, DoorState::Untried, Some(NOW_MS - RECENT_MS - 1)),
            door(5, DoorState::Untried, None),
            door(8, DoorState::Failed, Some(NOW_MS)),
            // It works, but only it has dialed us.
            Door { answered_at: None, ..door(9, DoorState::Working, Some(NOW_MS)) },
        ];
        let contacts = vec![
            contact(6, "198.51.100.6:1", Some(3.0)),
            contact(7, "198.51.100.7:1", None),
            contact(8, "198.51.101.8:1", Some(1.0)),
        ];
        assert_eq!(exported(doors, contacts), ["01 203.0.1.1:1", "03 203.0.3.1:1", "06 198.51.100.6:1"]);
    }

    #[test]
    fn a_node_is_listed_once_and_a_subnet_twice_most_recent_first() {
        let contacts = vec![
            contact(1, "198.51.100.1:1", Some(9.0)),
            contact(2, "198.51.100.2:1", Some(2.0)),
            contact(3, "198.51.100.3:1", Some(1.0)),
            contact(4, "[2001:db8:1::4]:1", Some(8.0)),
            contact(5, "[2001:db8:1:ffff::5]:1", Some(8.1)),
            contact(6, "[2001:db8:1::6]:1", Some(8.2)),
            contact(7, "203.0.113.1:1", Some(1.5)),
        ];
        let expected = [
            "07 203.0.7.1:1",
            "03 198.51.100.3:1",
            "02 198.51.100.2:1",
            "04 [2001:db8:1::4]:1",
            "05 [2001:db8:1:ffff::5]:1",
        ];
        assert_eq!(exported(vec![door(7, DoorState::Working, None)], contacts), expected);
    }

    #[test]
    fn a_list_has_64_places() {
        let contact = |number: u8| contact(number, &format!("198.51.{number}.1:1"), Some(f64::from(number)));
        assert_eq!(exported(Vec::new(), (1..=200).map(contact).collect()).len(), 64);
    }
}
