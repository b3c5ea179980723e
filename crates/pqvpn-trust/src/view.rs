// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a constitution evaluates to: admins, members, names, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NetworkId, Params, Serial, Statement, StatementId};

mod changes;
pub use changes::Event;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// The name after arbitration, unique in the network.
    pub name: String,
    /// The name that was asked for.
    pub wanted_name: String,
    /// The address in the network's pool; `None` if the pool is exhausted (IPv6 always works).
    pub ipv4: Option<Ipv4Addr>,
    /// Tags for policies.
    pub tags: Vec<String>,
    /// No trust level above this one.
    pub level_cap: u8,
    /// When it was added, ms since 1970, in the words of the admin.
    pub added_ms: u64,
    /// Not a member from this moment on, ms since 1970.
    pub expires_ms: Option<u64>,
    /// Not a member after this many seconds of silence.
    pub ephemeral_s: Option<u32>,
    /// The statement that made it a member.
    pub statement: StatementId,
    /// Its place in the order of admission; two members never share one.
    pub order: u64,
}

/// What is known about a member from its own signed records, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence {
    /// Wall clock, ms since 1970.
    pub now_ms: u64,
    /// `issued_ms` of the newest member record, if there is any.
    pub record_ms: Option<u64>,
    /// That record says that the member has left.
    pub left: bool,
}

impl Member {
    /// Says whether the membership has ended by its own terms.
    #[must_use]
    pub fn expired(&self, at_ms: u64) -> bool {
        self.expires_ms.is_some_and(|end| at_ms >= end)
    }

    /// Says whether the membership is alive: not expired, and an ephemeral member neither silent for too long nor gone.
    #[must_use]
    pub fn is_live(&self, presence: &Presence) -> bool {
        if self.expired(presence.now_ms) {
            return false;
        }
        let Some(limit) = self.ephemeral_s else { return true };
        let heard = presence.record_ms.unwrap_or(self.added_ms).max(self.added_ms);
        let gone = presence.left && presence.record_ms.is_some_and(|at| at >= self.added_ms);
        !gone && presence.now_ms.saturating_sub(heard) <= u64::from(limit) * 1000
    }
}

/// A peer that was thrown out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// When, ms since 1970, in the words of the admin.
    pub at_ms: u64,
    /// The signers whose signatures counted.
    pub by: Vec<PeerId>,
    /// Why, in the words of the admin.
    pub reason: String,
    /// The statement.
    pub statement: StatementId,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Hash of the policy's text.
    pub hash: [u8; 32],
    /// Version of the schema it was checked against.
    pub schema: u16,
    /// The statement that set it.
    pub statement: StatementId,
}

/// The newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The statement.
    pub statement: StatementId,
    /// Its sequence number.
    pub seq: u64,
    /// Hash over the ids and signers of all statements it stands on; checked.
    pub seal: [u8; 32],
}

/// What the statements evaluate to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The network.
    pub network: NetworkId,
    /// Its name, for people.
    pub name: String,
    /// Parameters in force.
    pub params: Params,
    /// Switched off for good.
    pub disabled: bool,
    /// Keys that may sign.
    pub admins: BTreeMap<PeerId, PublicIdentity>,
    /// Members, expired and silent ones included: ask [`View::is_member`].
    pub members: BTreeMap<PeerId, Member>,
    /// Peers that were thrown out and not brought back.
    pub revoked: BTreeMap<PeerId, Revocation>,
    /// The policy in force.
    pub policy: Option<Policy>,
    /// How often each invite was used.
    pub uses: BTreeMap<Serial, u32>,
    /// Invites that were cancelled.
    pub cancelled: BTreeSet<Serial>,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Statements held that have no effect: retro-invalidated, beaten by a revocation, used-up invites, too few signers.
    pub void: BTreeSet<StatementId>,
    pub(crate) names: BTreeMap<String, PeerId>,
    pub(crate) addresses: BTreeMap<Ipv4Addr, PeerId>,
    pub(crate) invited: BTreeSet<(Serial, PeerId)>,
    pub(crate) reserved: BTreeMap<PeerId, Ipv4Addr>,
    /// The key before this one, whose address is reserved.
    pub(crate) former: BTreeMap<PeerId, PeerId>,
    pub(crate) was_revoked: BTreeSet<PeerId>,
    pub(crate) admitted: u64,
}

impl View {
    /// The view before the first statement.
    pub(crate) fn of_genesis(statement: &Statement) -> Option<Self> {
        let Act::Genesis(genesis) = &statement.body().act else { return None };
        Some(Self {
            network: statement.network(),
            name: genesis.name.clone(),
            params: genesis.params,
            disabled: false,
            admins: BTreeMap::new(),
            members: BTreeMap::new(),
            revoked: BTreeMap::new(),
            policy: None,
            uses: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            checkpoint: None,
            void: BTreeSet::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            invited: BTreeSet::new(),
            reserved: BTreeMap::new(),
            former: BTreeMap::new(),
            was_revoked: BTreeSet::new(),
            admitted: 0,
        })
    }

    /// Says whether `peer` is a member at this moment.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId, presence: &Presence) -> bool {
        self.member_at(peer, presence).is_some()
    }

    /// The membership of `peer` if it is alive and the network is not switched off.
    #[must_use]
    pub fn member_at(&self, peer: &PeerId, presence: &Presence) -> Option<&Member> {
        self.members.get(peer).filter(|member| !self.disabled && member.is_live(presence))
    }

    /// All members alive at this moment; `presence` is asked for each.
    pub fn live_members(&self, presence: impl Fn(&PeerId) -> Presence) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| !self.disabled && member.is_live(&presence(&member.peer)))
    }

    /// Says whether `peer` may sign.
    #[must_use]
    pub fn is_admin(&self, peer: &PeerId) -> bool {
        self.admins.contains_key(peer)
    }

    /// Signatures an act of the quorum needs now.
    #[must_use]
    pub fn quorum(&self) -> usize {
        usize::from(self.params.quorum).min(self.admins.len()).max(1)
    }

    /// The member of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.names.get(name).and_then(|peer| self.members.get(peer))
    }

    /// The member of this address.
    #[must_use]
    pub fn by_address(&self, address: Ipv4Addr) -> Option<&Member> {
        self.addresses.get(&address).and_then(|peer| self.members.get(peer))
    }

    /// The first of `name`, `name-2`, `name-3`, … that nobody has.
    #[must_use]
    pub fn free_name(&self, name: &str) -> String {
        crate::fold::free_name(name, |taken| self.names.contains_key(taken))
    }
}
