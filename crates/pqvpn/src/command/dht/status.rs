// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht status`: how this node stands in the DHT.

use std::time::{SystemTime, UNIX_EPOCH};

use pqvpn_api::{
    client::Client,
    model::{Bootstrap, DhtAdmission, DhtContent, DhtOwnRecord, DhtState, DhtStatus, DoorState},
};

use super::{eclipse, nodes};
use crate::{
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, bytes, counted, printable},
};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let client: Client = context.client()?;
    let status = client.dht_status().await?;
    // Which doors worked is for people; scripts have `bootstrap list`.
    let doors = if context.output.json { None } else { client.bootstrap().await.ok() };
    context.output.result(&status, |output| render(output, &status, doors.as_ref()));
    Ok(())
}

fn render(output: &Output, status: &DhtStatus, doors: Option<&Bootstrap>) -> String {
    let (tone, state) = state(status.state);
    let part = if status.serving { "serves" } else { "only asks" };
    let mut lines = vec![format!("state      {}, {part}: {}", output.tone(tone, state), printable(&status.why))];
    if !status.enabled {
        return lines.concat();
    }
    lines.push(format!("admission  {}", admission(status)));
    lines.extend(status.node_id.as_ref().map(|id| format!("node id    {id}")));
    let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
    if !addresses.is_empty() {
        lines.push(format!("addresses  {}", addresses.join(" ")));
    }
    lines.extend(status.observed.map(|seen| format!("seen as    {seen}")));
    let size =
        status.size_estimate.map_or_else(|| "size not known yet".to_owned(), |size| format!("about {size:.0} nodes"));
    lines.push(format!("network    {}, {size}", printable(&status.network)));
    let links = &status.links;
    lines.push(format!(
        "table      {}; links: {} outbound, {} inbound, {} dialing",
        counted(status.contacts, "contact"),
        links.outbound,
        links.inbound,
        links.dialing
    ));
    lines.push(format!(
        "stored     {} of others, {}",
        counted(status.stored_records, "record"),
        bytes(status.stored_bytes as u64)
    ));
    let rpc = &status.rpc;
    lines.push(format!(
        "messages   {} sent ({} answered, {} failed), {} served, {} refused",
        rpc.sent, rpc.answered, rpc.failed, rpc.served, rpc.refused
    ));
    lines.push(format!("traffic    {} sent, {} received", bytes(status.tx_bytes), bytes(status.rx_bytes)));
    lines.push(format!("lookups    surroundings {}", eclipse(output, status.eclipse)));
    lines.extend(status.own_records.iter().map(own));
    lines.push(format!("doors      {}", worked(status, doors)));
    let attacks: Vec<String> = status
        .counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !attacks.is_empty() {
        lines.push(output.tone(Tone::Warn, &format!("# refused: {}", attacks.join(" · "))));
    }
    lines.join("\n")
}

const fn state(state: DhtState) -> (Tone, &'static str) {
    match state {
        DhtState::Off => (Tone::Dim, "off"),
        DhtState::Alone => (Tone::Warn, "alone (the first node, or none is known)"),
        DhtState::Joining => (Tone::Warn, "joining"),
        DhtState::Joined => (Tone::Good, "joined"),
        DhtState::Unreachable => (Tone::Bad, "unreachable: no node that is known answers"),
    }
}

fn admission(status: &DhtStatus) -> String {
    match status.admission {
        DhtAdmission::None => "not needed yet".to_owned(),
        DhtAdmission::Solving { elapsed_s, tried } => {
            let expected = status.difficulty;
            format!("solving for {elapsed_s:.0}s, {tried} tries, about {expected} expected")
        }
        DhtAdmission::Solved { week, until_ms } => {
            let left = until_ms.saturating_sub(now_ms()) / 1000;
            format!("week {week}, for another {}", age(left))
        }
    }
}

fn own(own: &DhtOwnRecord) -> String {
    let what = match &own.record.content {
        DhtContent::Peer { addresses, .. } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("where this node is ({})", addresses.join(" "))
        }
        DhtContent::Value { name, .. } => format!("the value {}", printable(name)),
        DhtContent::Other => "a record".to_owned(),
    };
    let stored = own.stored.map_or_else(|| "not published yet".to_owned(), |count| format!("kept by {}", nodes(count)));
    format!("published  {what}, {stored}, key {}", own.record.key)
}

fn worked(status: &DhtStatus, doors: Option<&Bootstrap>) -> String {
    let mut text = format!("{} known, {} working", status.doors.known, status.doors.working);
    let working = doors.iter().flat_map(|list| &list.doors).filter(|door| door.state == DoorState::Working);
    let names: Vec<String> = working
        .map(|door| {
            let place = door.answered_at.map_or_else(|| "it dialed us".to_owned(), |at| at.to_string());
            format!("{place} ({})", printable(&door.sources.join(", ")))
        })
        .collect();
    if !names.is_empty() {
        text.push_str(": ");
        text.push_str(&names.join(", "));
    }
    text
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> DhtStatus {
        let zeros = serde_json::json!({
            "schema": 1, "enabled": true, "state": "joined", "mode": "auto", "serving": false, "why": "no address",
            "network": "open", "difficulty": 512, "admission": {"state": "solving", "elapsed_s": 2.5, "tried": 7},
            "node_id": null, "addresses": [], "observed": null, "contacts": 3, "size_estimate": 41.2,
            "eclipse": "normal", "links": {"outbound": 1, "inbound": 2, "dialing": 0},
            "rpc": {"sent": 9, "answered": 8, "failed": 1, "served": 4, "refused": 2}, "tx_bytes": 2048, "rx_bytes": 1,
            "stored_records": 0, "stored_bytes": 0, "own_records": [], "doors": {"known": 1, "working": 1},
            "counters": {"forged": 3, "replayed": 0}
        });
        serde_json::from_value(zeros).unwrap()
    }

    #[test]
    fn what_an_operator_needs_is_there_and_zeros_are_not() {
        let text = render(&Output::new(true, false), &status(), None);
        for needle in ["joined, only asks: no address", "solving for 2s, 7 tries", "about 41 nodes", "2.0 KiB sent"] {
            assert!(text.contains(needle), "{needle}: {text}");
        }
        assert!(text.contains("# refused: forged 3") && !text.contains("replayed"), "{text}");
    }

    #[test]
    fn a_node_without_a_dht_says_only_that() {
        let off = DhtStatus { enabled: false, state: DhtState::Off, why: "dht.enabled is false".into(), ..status() };
        let text = render(&Output::new(true, false), &off, None);
        assert_eq!(text, "state      off, only asks: dht.enabled is false");
    }
}
