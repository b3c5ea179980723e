// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps the reports of the DHT to the JSON model.

use std::time::Duration;

use data_encoding::HEXLOWER;
use pqvpn_node::{
    bootstrap::{ShelvedList, SignedList},
    config::DhtMode,
    dht::report,
};
use pqvpn_wire::dht::NetworkId;

use super::{
    BootstrapList, DhtAdmission, DhtBucket, DhtContact, DhtContent, DhtDoors, DhtEclipse, DhtFound, DhtGot, DhtLinks,
    DhtLookup, DhtLookups, DhtOwnRecord, DhtPut, DhtRecord, DhtRpc, DhtState, DhtStatus, DhtTable, Door, DoorState,
    from_node::{millis, rounded},
};
use crate::SCHEMA;

/// The open DHT's name in the configuration.
const OPEN: &str = "open";

impl From<report::DhtReport> for DhtStatus {
    fn from(node: report::DhtReport) -> Self {
        Self {
            schema: SCHEMA,
            enabled: node.enabled,
            state: node.state.into(),
            mode: node.mode.name().into(),
            serving: node.serving,
            why: why(&node),
            network: network_name(&node.network),
            difficulty: node.difficulty,
            admission: node.admission.into(),
            node_id: node.node_id.map(|id| id.to_string()),
            addresses: node.addresses,
            observed: node.observed,
            contacts: node.contacts,
            size_estimate: node.size_estimate.map(|size| rounded(size, 10.0)),
            eclipse: node.eclipse.into(),
            links: DhtLinks { outbound: node.links.outbound, inbound: node.links.inbound, dialing: node.links.dialing },
            rpc: DhtRpc {
                sent: node.rpc.sent,
                answered: node.rpc.answered,
                failed: node.rpc.failed,
                served: node.rpc.served,
                refused: node.rpc.refused,
            },
            lookups: DhtLookups { begun: node.lookups.0, running: node.lookups.1 },
            tx_bytes: node.tx_bytes,
            rx_bytes: node.rx_bytes,
            stored_records: node.stored_records,
            stored_bytes: node.stored_bytes,
            own_records: node.own_records.into_iter().map(DhtOwnRecord::from).collect(),
            doors: DhtDoors { known: node.doors.0, working: node.doors.1 },
            counters: node.counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}

/// Why the node serves others or does not, in a few words.
fn why(node: &report::DhtReport) -> String {
    let said = match (node.mode, node.serving) {
        _ if !node.enabled => "dht.enabled is false",
        (DhtMode::Client, _) => "dht.mode is client",
        (DhtMode::Server, true) => "dht.mode is server",
        (DhtMode::Auto, true) => "others can reach this node",
        (DhtMode::Server | DhtMode::Auto, false) => match node.admission {
            report::AdmissionState::Solving { .. } => "the proof of work is not done yet",
            report::AdmissionState::None if node.contacts == 0 => "nobody is there to serve yet",
            report::AdmissionState::None | report::AdmissionState::Solved { .. } => {
                "no address is known yet at which others can reach this node"
            }
        },
    };
    said.to_owned()
}

fn network_name(network: &NetworkId) -> String {
    if *network == NetworkId::OPEN { OPEN.to_owned() } else { HEXLOWER.encode(network.as_bytes()) }
}

fn seconds(age: Duration) -> f64 {
    rounded(age.as_secs_f64(), 10.0)
}

impl From<report::DhtState> for DhtState {
    fn from(state: report::DhtState) -> Self {
        match state {
            report::DhtState::Off => Self::Off,
            report::DhtState::Alone => Self::Alone,
            report::DhtState::Joining => Self::Joining,
            report::DhtState::Joined => Self::Joined,
            report::DhtState::Unreachable => Self::Unreachable,
        }
    }
}

impl From<report::AdmissionState> for DhtAdmission {
    fn from(state: report::AdmissionState) -> Self {
        match state {
            report::AdmissionState::None => Self::None,
            report::AdmissionState::Solving { elapsed, tried } => Self::Solving { elapsed_s: seconds(elapsed), tried },
            report::AdmissionState::Solved { week, until_ms } => Self::Solved { week, until_ms },
        }
    }
}

impl From<report::EclipseReport> for DhtEclipse {
    fn from(verdict: report::EclipseReport) -> Self {
        match verdict {
            report::EclipseReport::Normal => Self::Normal,
            report::EclipseReport::Suspect => Self::Suspect,
            report::EclipseReport::Eclipse => Self::Eclipse,
        }
    }
}

impl From<report::OwnRecord> for DhtOwnRecord {
    fn from(own: report::OwnRecord) -> Self {
        Self { record: own.record.into(), stored: own.stored }
    }
}

impl From<report::RecordReport> for DhtRecord {
    fn from(record: report::RecordReport) -> Self {
        let content = match record.content {
            report::RecordContent::Peer { addresses, capabilities } => DhtContent::Peer { addresses, capabilities },
            report::RecordContent::Value { name, value } => {
                let value_hex = HEXLOWER.encode(&value);
                DhtContent::Value { name, value: String::from_utf8(value).ok(), value_hex }
            }
            report::RecordContent::Other => DhtContent::Other,
        };
        Self {
            key: record.key.to_string(),
            owner: record.owner.to_string(),
            seq: record.seq,
            not_before_ms: record.not_before_ms,
            not_after_ms: record.not_after_ms,
            content,
        }
    }
}

impl From<report::ContactReport> for DhtContact {
    fn from(contact: report::ContactReport) -> Self {
        Self {
            peer_id: contact.peer.to_string(),
            node_id: contact.node_id.to_string(),
            addresses: contact.addresses,
            prefix_bits: contact.prefix_bits,
            seen_s: contact.seen.map(seconds),
        }
    }
}

impl From<report::LookupReport> for DhtLookup {
    fn from(lookup: report::LookupReport) -> Self {
        Self {
            target: lookup.target.to_string(),
            closest: lookup.closest.into_iter().map(DhtContact::from).collect(),
            asked: lookup.asked,
            answered: lookup.answered,
            failed: lookup.failed,
            rounds: lookup.rounds,
            elapsed_ms: millis(lookup.elapsed),
            eclipse: lookup.eclipse.into(),
        }
    }
}

impl From<report::LookupReport> for DhtFound {
    fn from(lookup: report::LookupReport) -> Self {
        Self { schema: SCHEMA, lookup: lookup.into() }
    }
}

impl From<report::GetReport> for DhtGot {
    fn from(got: report::GetReport) -> Self {
        Self {
            schema: SCHEMA,
            record: got.record.map(DhtRecord::from),
            sources: got.sources,
            first_ms: got.first.map(millis),
            rotated_to: got.successor.map(|peer| peer.to_string()),
            lookup: got.lookup.into(),
        }
    }
}

impl From<report::PutReport> for DhtPut {
    fn from(put: report::PutReport) -> Self {
        Self { schema: SCHEMA, record: put.record.into(), stored: put.stored, lookup: put.lookup.into() }
    }
}

impl From<report::TableReport> for DhtTable {
    fn from(table: report::TableReport) -> Self {
        let bucket = |bucket: report::BucketReport| DhtBucket {
            prefix_bits: bucket.prefix_bits,
            contacts: bucket.contacts.into_iter().map(DhtContact::from).collect(),
            replacements: bucket.replacements,
        };
        Self {
            schema: SCHEMA,
            own: table.own.map(|own| own.to_string()),
            buckets: table.buckets.into_iter().map(bucket).collect(),
        }
    }
}

impl From<report::DoorReport> for Door {
    fn from(door: report::DoorReport) -> Self {
        let (state, age, why) = match door.state {
            report::DoorState::Untried => (DoorState::Untried, None, None),
            report::DoorState::Working { age } => (DoorState::Working, Some(age), None),
            report::DoorState::Failed { age, why } => (DoorState::Failed, Some(age), Some(why)),
        };
        Self {
            peer_id: door.peer.to_string(),
            endpoints: door.endpoints,
            sources: door.sources.iter().map(|source| source.as_str().to_owned()).collect(),
            expires_ms: door.expires_ms,
            state,
            age_s: age.map(seconds),
            why,
            verified_ms: door.verified_ms,
            answered_at: door.answered_at,
        }
    }
}

impl BootstrapList {
    /// What to show of a list at `now_ms`.
    #[must_use]
    pub fn of(shelved: &ShelvedList, now_ms: u64) -> Self {
        let list = shelved.list.as_ref().ok();
        let draft = list.map(SignedList::draft);
        let remark = match &shelved.list {
            Ok(list) => list.freshness(now_ms).warning(),
            Err(why) => Some(format!("not used: {why}")),
        };
        Self {
            path: shelved.path.clone(),
            signer: list.map(|list| list.signer().to_string()),
            issued_ms: draft.map(|draft| draft.issued_ms),
            expires_ms: draft.map(|draft| draft.expires_ms),
            entries: draft.map_or(0, |draft| draft.entries.len()),
            remark,
        }
    }
}
