// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names for people: who is meant, and what a statement does.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_packet::addr::{NetworkHash, ula};
use pqvpn_trust::View;
use pqvpn_wire::network::{Act, plain};

use super::Network;
use crate::membership::error::NetworkError;

/// Fewest digits of an id that name something.
const MIN_DIGITS: usize = 4;

/// Somebody meant by a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::membership) struct Found {
    pub(in crate::membership) peer: PeerId,
    pub(in crate::membership) name: String,
}

/// Lower-case hex.
pub(in crate::membership) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Whether a text is the id, or a prefix of it that is long enough to be meant.
pub(in crate::membership) fn is_prefix(text: &str, id: &str) -> bool {
    text.len() >= MIN_DIGITS && id.starts_with(&text.to_ascii_lowercase())
}

/// Who of a network a text means: a name, also with the network's behind a dot, an address, or a PeerID's beginning.
///
/// # Errors
/// Nobody, or several.
pub(in crate::membership) fn find_member(network: &Network, who: &str) -> Result<Found, NetworkError> {
    let view = network.constitution.view();
    let label = who.strip_suffix(&format!(".{}", network.head.name)).unwrap_or(who).to_ascii_lowercase();
    let found = |peer: PeerId, name: &str| Found { peer, name: name.to_owned() };
    if let Some(member) = view.by_name(&label) {
        // Who joins chooses its name: one like the beginning of another's PeerID must not stand in for that other.
        let meant =
            view.members.values().find(|other| other.peer != member.peer && is_prefix(who, &other.peer.to_string()));
        return match meant {
            None => Ok(found(member.peer, &member.name)),
            Some(other) => Err(NetworkError::AmbiguousMember {
                who: who.to_owned(),
                which: format!("{}, {}", member.name, other.name),
            }),
        };
    }
    if let Ok(address) = who.parse::<IpAddr>() {
        let hash = NetworkHash::of_network(network.id.as_bytes());
        let has = |peer: &PeerId| IpAddr::V6(ula(hash, peer.as_bytes())) == address;
        let of_address = view
            .members
            .values()
            .find(|member| member.ipv4.is_some_and(|ipv4| IpAddr::V4(ipv4) == address) || has(&member.peer));
        if let Some(member) = of_address {
            return Ok(found(member.peer, &member.name));
        }
    }
    let fitting: Vec<_> = view.members.values().filter(|member| is_prefix(who, &member.peer.to_string())).collect();
    match fitting.as_slice() {
        [] => Err(NetworkError::UnknownMember { network: network.head.name.clone(), who: who.to_owned() }),
        [member] => Ok(found(member.peer, &member.name)),
        several => Err(NetworkError::AmbiguousMember {
            who: who.to_owned(),
            which: several.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// The name of a peer in a view, or the beginning of its PeerID.
pub(in crate::membership) fn name_of(view: &View, peer: &PeerId) -> String {
    view.members.get(peer).map_or_else(|| peer.short(), |member| member.name.clone())
}

/// What an act does, in one line.
pub(in crate::membership) fn act_text(view: &View, act: &Act) -> String {
    let name = |peer: &PeerId| name_of(view, peer);
    match act {
        Act::Genesis(genesis) => format!("{} founded by {}", genesis.name, genesis.founder_name),
        Act::AddAdmin { key } => format!("{} may sign", name(&key.peer_id())),
        Act::RemoveAdmin { peer } => format!("{} may sign no more", name(peer)),
        Act::AddMember(member) => format!("{} ({}) is a member", member.name, member.peer.short()),
        Act::Revoke { peer, reason } if reason.is_empty() => format!("{} is revoked", name(peer)),
        Act::Revoke { peer, reason } => format!("{} is revoked: {}", name(peer), plain(reason)),
        Act::CancelInvite { serial } => format!("invite {} is cancelled", serial.short()),
        Act::SetParams(params) => format!(
            "quorum {}, addresses {}, joins {}, head at most {} s old",
            params.quorum,
            params.ipv4_pool,
            if params.approval { "need approval" } else { "need no approval" },
            params.max_head_age_s
        ),
        Act::SetPolicy { hash, schema } => format!("policy {} of schema {schema}", hex(&hash[..4])),
        Act::Checkpoint { seal } => format!("checkpoint {}", hex(&seal[..4])),
        Act::Rotate { old, key, .. } => format!("{} now has the key {}", name(&old.peer_id()), key.peer_id().short()),
        Act::Leave { key } => format!("{} leaves", name(&key.peer_id())),
        Act::Disable { .. } => "the network is disabled for good".to_owned(),
        other => other.name().to_owned(),
    }
}

impl Network {
    /// Which admin a text means; one that is no member any more has only its PeerID.
    ///
    /// # Errors
    /// None, or several.
    pub(in crate::membership) fn find_admin(&self, who: &str) -> Result<PeerId, NetworkError> {
        let view = self.constitution.view();
        match find_member(self, who) {
            Ok(found) => Ok(found.peer),
            Err(error) => {
                let fitting: Vec<&PeerId> =
                    view.admins.keys().filter(|peer| is_prefix(who, &peer.to_string())).collect();
                if let [peer] = fitting.as_slice() { Ok(**peer) } else { Err(error) }
            }
        }
    }

    /// The names of the admins, for people.
    pub(in crate::membership) fn admin_names(&self) -> String {
        let view = self.constitution.view();
        let names: Vec<String> = view.admins.keys().map(|peer| name_of(view, peer)).collect();
        names.join(", ")
    }
}
