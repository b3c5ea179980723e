// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a statement of the constitution does (security.md 3.2).

use std::{fmt, net::Ipv4Addr};

use ciborium::Value;
use ipnet::Ipv4Net;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
};

use super::{
    MAX_ADMINS, MAX_REASON_LEN, NetworkId, Serial,
    name::{are_tags, is_label},
    statement::BodyError,
};
use crate::cbor;

/// Highest trust level (security.md 3.5).
pub const MAX_LEVEL: u8 = 4;
/// Least age a head may be asked to have, in s.
const MIN_HEAD_AGE_S: u32 = 60;
/// Prefix lengths a pool may have.
const POOL_PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
/// Where a pool may lie: addresses that are nobody's on the Internet (RFC 1918, RFC 6598). Every member routes the pool
/// into the tunnel, so a pool anywhere else would let a founder take addresses of others over.
const POOL_BLOCKS: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// Begins a network; the first statement and no other.
    Genesis(Box<Genesis>),
    /// Lets another key sign.
    AddAdmin {
        /// The key.
        key: PublicIdentity,
    },
    /// Lets a key sign no more.
    RemoveAdmin {
        /// Whose.
        peer: PeerId,
    },
    /// Takes somebody in, or changes what was said of a member.
    AddMember(NewMember),
    /// Puts somebody out, for good unless somebody who knows of it takes them in again.
    Revoke {
        /// Whom.
        peer: PeerId,
        /// For people; at most 128 bytes.
        reason: String,
    },
    /// Takes back an invite.
    CancelInvite {
        /// Which.
        serial: Serial,
    },
    /// Changes the rules.
    SetParams(Params),
    /// Names the policy in force.
    SetPolicy {
        /// SHA-256 of the policy's text.
        hash: [u8; 32],
        /// Version of the policy's schema.
        schema: u16,
    },
    /// All statements this one stands on, and who signed each, are held by those who sign here.
    Checkpoint {
        /// Hash over the ids and signers of all of them.
        seal: [u8; 32],
    },
    /// A member's key follows its old one.
    Rotate {
        /// The old key, which signs the statement.
        old: PublicIdentity,
        /// The new key.
        key: PublicIdentity,
        /// The new key's consent: [`rotation_bytes`] signed under [`SignatureLabel::NetworkRotation`].
        proof: CompositeSignature,
    },
    /// A member goes by itself.
    Leave {
        /// The member's key, which signs the statement.
        key: PublicIdentity,
    },
    /// Switches the constitution off for good; needs no signature.
    Disable {
        /// Its SHA-256 stands in the genesis.
        secret: [u8; 32],
    },
}

/// How a network begins; the founder is its first admin and first member.
#[derive(Clone, PartialEq, Eq)]
pub struct Genesis {
    /// What people call it; a label ([`is_label`]).
    pub name: String,
    /// Who founds it.
    pub founder: PublicIdentity,
    /// The founder's name in it; a label.
    pub founder_name: String,
    /// Random; the network's own key is derived from it, and only members see the genesis.
    pub secret: [u8; 32],
    /// The rules at first.
    pub params: Params,
    /// SHA-256 of the secret that switches the constitution off, if there is one.
    pub disable: Option<[u8; 32]>,
}

/// The rules of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// How many admins must sign what changes admins or rules; 1 to 16.
    pub quorum: u8,
    /// Where members' IPv4 addresses come from; /8 to /30, no host bits.
    pub ipv4_pool: Ipv4Net,
    /// Whether joins wait for an admin unless the invite says otherwise.
    pub approval: bool,
    /// How old the newest word of the constitution may be, in s; at least 60.
    pub max_head_age_s: u32,
}

/// A member as an admin takes it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Who.
    pub peer: PeerId,
    /// The name wanted; a label. Two that want one name are told apart by order.
    pub name: String,
    /// At most 8, strictly ascending.
    pub tags: Vec<String>,
    /// Highest trust level it can reach, 0 to [`MAX_LEVEL`].
    pub level_cap: u8,
    /// Until when, ms since 1970.
    pub expires_ms: Option<u64>,
    /// Silent for longer, it is no member any more; in s.
    pub ephemeral_s: Option<u32>,
    /// The invite it came with.
    pub invite: Option<InviteUse>,
}

/// Which invite admitted a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteUse {
    /// The invite.
    pub serial: Serial,
    /// How often it may be used, as the invite says; at least 1.
    pub max_uses: u32,
}

impl Default for Params {
    fn default() -> Self {
        let ipv4_pool = Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16);
        Self { quorum: 1, ipv4_pool, approval: false, max_head_age_s: 24 * 3600 }
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Genesis").field("name", &self.name).field("founder", &self.founder).finish_non_exhaustive()
    }
}

/// Whether a network may have this pool: /8 to /30 without host bits, of addresses that are nobody's on the Internet.
#[must_use]
pub fn is_pool(pool: Ipv4Net) -> bool {
    POOL_PREFIXES.contains(&pool.prefix_len())
        && pool == pool.trunc()
        && POOL_BLOCKS.iter().any(|block| block.contains(&pool))
}

/// What the new key of a rotation signs: `"rotate" || network || PeerID of the old key`.
#[must_use]
pub fn rotation_bytes(network: &NetworkId, old: &PeerId) -> Vec<u8> {
    [b"rotate".as_slice(), network.as_bytes(), old.as_bytes()].concat()
}

impl Act {
    /// A rotation to the key of `new`, with its consent; the statement itself is signed by the old key.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn rotate(network: &NetworkId, old: PublicIdentity, new: &Identity) -> Result<Self, IdentityError> {
        let proof = new.sign(SignatureLabel::NetworkRotation, &rotation_bytes(network, &old.peer_id()))?;
        Ok(Self::Rotate { old, key: new.public().clone(), proof })
    }

    /// The key of `peer`, where the act itself shows it as one that signs: founder, rotating or leaving member.
    #[must_use]
    pub fn signing_key(&self, peer: &PeerId) -> Option<&PublicIdentity> {
        let key = match self {
            Self::Genesis(genesis) => &genesis.founder,
            Self::Rotate { old, .. } => old,
            Self::Leave { key } => key,
            Self::AddAdmin { .. }
            | Self::RemoveAdmin { .. }
            | Self::AddMember(_)
            | Self::Revoke { .. }
            | Self::CancelInvite { .. }
            | Self::SetParams(_)
            | Self::SetPolicy { .. }
            | Self::Checkpoint { .. }
            | Self::Disable { .. } => return None,
        };
        (key.peer_id() == *peer).then_some(key)
    }

    /// A short name for people and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::AddAdmin { .. } => "add-admin",
            Self::RemoveAdmin { .. } => "remove-admin",
            Self::AddMember(_) => "add-member",
            Self::Revoke { .. } => "revoke",
            Self::CancelInvite { .. } => "cancel-invite",
            Self::SetParams(_) => "set-params",
            Self::SetPolicy { .. } => "set-policy",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Rotate { .. } => "rotate",
            Self::Leave { .. } => "leave",
            Self::Disable { .. } => "disable",
        }
    }

    /// Whether the act is legal in itself, whoever signs it.
    ///
    /// # Errors
    /// [`BodyError`] names the first field that is not.
    pub(crate) fn check(&self) -> Result<(), BodyError> {
        match self {
            Self::Genesis(genesis) => genesis.check(),
            Self::AddMember(member) => member.check(),
            Self::SetParams(params) => params.check(),
            Self::Revoke { reason, .. } => {
                let legal = reason.len() <= MAX_REASON_LEN && !reason.chars().any(char::is_control);
                if legal { Ok(()) } else { Err(BodyError::Reason) }
            }
            Self::Rotate { old, key, .. } => {
                if old.peer_id() == key.peer_id() {
                    Err(BodyError::SameKey)
                } else {
                    Ok(())
                }
            }
            Self::AddAdmin { .. }
            | Self::RemoveAdmin { .. }
            | Self::CancelInvite { .. }
            | Self::SetPolicy { .. }
            | Self::Checkpoint { .. }
            | Self::Leave { .. }
            | Self::Disable { .. } => Ok(()),
        }
    }

    /// `[kind, field, ...]`
    pub(crate) fn to_value(&self) -> Value {
        let key = |key: &PublicIdentity| Value::Bytes(key.to_spki());
        let peer = |peer: &PeerId| cbor::bytes(peer.as_bytes());
        let fields: Vec<Value> = match self {
            Self::Genesis(genesis) => genesis.to_values(),
            Self::AddAdmin { key: admin } => vec![2.into(), key(admin)],
            Self::RemoveAdmin { peer: admin } => vec![3.into(), peer(admin)],
            Self::AddMember(member) => member.to_values(),
            Self::Revoke { peer: member, reason } => vec![5.into(), peer(member), Value::Text(reason.clone())],
            Self::CancelInvite { serial } => vec![6.into(), serial.to_value()],
            Self::SetParams(params) => vec![7.into(), params.to_value()],
            Self::SetPolicy { hash, schema } => vec![8.into(), cbor::bytes(hash), (*schema).into()],
            Self::Checkpoint { seal } => vec![9.into(), cbor::bytes(seal)],
            Self::Rotate { old, key: new, proof } => {
                vec![10.into(), key(old), key(new), cbor::bytes(proof.as_bytes())]
            }
            Self::Leave { key: member } => vec![11.into(), key(member)],
            Self::Disable { secret } => vec![12.into(), cbor::bytes(secret)],
        };
        Value::Array(fields)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let fields = value.into_array().ok()?;
        let kind = cbor::integer::<u8>(fields.first()?)?;
        let fields = Value::Array(fields);
        match kind {
            1 => Genesis::from_value(fields).map(|genesis| Self::Genesis(Box::new(genesis))),
            2 => cbor::array(fields).and_then(|[_, key]| Some(Self::AddAdmin { key: key_from(key)? })),
            3 => cbor::array(fields).and_then(|[_, peer]| Some(Self::RemoveAdmin { peer: peer_from(peer)? })),
            4 => NewMember::from_value(fields).map(Self::AddMember),
            5 => cbor::array(fields).and_then(|[_, peer, reason]| {
                Some(Self::Revoke { peer: peer_from(peer)?, reason: reason.into_text().ok()? })
            }),
            6 => cbor::array(fields)
                .and_then(|[_, serial]| Some(Self::CancelInvite { serial: Serial::from_value(serial)? })),
            7 => cbor::array(fields).and_then(|[_, params]| Params::from_value(params).map(Self::SetParams)),
            8 => cbor::array(fields).and_then(|[_, hash, schema]| {
                Some(Self::SetPolicy { hash: cbor::fixed(hash)?, schema: cbor::integer(&schema)? })
            }),
            9 => cbor::array(fields).and_then(|[_, seal]| Some(Self::Checkpoint { seal: cbor::fixed(seal)? })),
            10 => cbor::array(fields).and_then(|[_, old, key, proof]| {
                Some(Self::Rotate { old: key_from(old)?, key: key_from(key)?, proof: signature_from(proof)? })
            }),
            11 => cbor::array(fields).and_then(|[_, key]| Some(Self::Leave { key: key_from(key)? })),
            12 => cbor::array(fields).and_then(|[_, secret]| Some(Self::Disable { secret: cbor::fixed(secret)? })),
            _ => None,
        }
    }
}

impl Genesis {
    fn check(&self) -> Result<(), BodyError> {
        if !is_label(&self.name) || !is_label(&self.founder_name) {
            return Err(BodyError::Name);
        }
        self.params.check()
    }

    fn to_values(&self) -> Vec<Value> {
        vec![
            1.into(),
            Value::Text(self.name.clone()),
            Value::Bytes(self.founder.to_spki()),
            Value::Text(self.founder_name.clone()),
            cbor::bytes(&self.secret),
            self.params.to_value(),
            cbor::option(self.disable, |hash| cbor::bytes(&hash)),
        ]
    }

    fn from_value(value: Value) -> Option<Self> {
        let [_, name, founder, founder_name, secret, params, disable] = cbor::array(value)?;
        Some(Self {
            name: name.into_text().ok()?,
            founder: key_from(founder)?,
            founder_name: founder_name.into_text().ok()?,
            secret: cbor::fixed(secret)?,
            params: Params::from_value(params)?,
            disable: cbor::optional(disable, cbor::fixed)?,
        })
    }
}

impl Params {
    fn check(&self) -> Result<(), BodyError> {
        if self.quorum == 0 || usize::from(self.quorum) > MAX_ADMINS {
            return Err(BodyError::Quorum);
        }
        if !is_pool(self.ipv4_pool) {
            return Err(BodyError::Pool);
        }
        if self.max_head_age_s < MIN_HEAD_AGE_S { Err(BodyError::HeadAge) } else { Ok(()) }
    }

    fn to_value(self) -> Value {
        let pool = Value::Array(vec![cbor::bytes(&self.ipv4_pool.addr().octets()), self.ipv4_pool.prefix_len().into()]);
        Value::Array(vec![self.quorum.into(), pool, self.approval.into(), self.max_head_age_s.into()])
    }

    fn from_value(value: Value) -> Option<Self> {
        let [quorum, pool, approval, max_head_age_s] = cbor::array(value)?;
        let [address, prefix] = cbor::array(pool)?;
        let address = Ipv4Addr::from(cbor::fixed::<4>(address)?);
        Some(Self {
            quorum: cbor::integer(&quorum)?,
            ipv4_pool: Ipv4Net::new(address, cbor::integer(&prefix)?).ok()?,
            approval: approval.as_bool()?,
            max_head_age_s: cbor::integer(&max_head_age_s)?,
        })
    }
}

impl NewMember {
    fn check(&self) -> Result<(), BodyError> {
        if !is_label(&self.name) {
            return Err(BodyError::Name);
        }
        if !are_tags(&self.tags) {
            return Err(BodyError::Tags);
        }
        if self.level_cap > MAX_LEVEL {
            return Err(BodyError::Level);
        }
        if self.invite.is_some_and(|invite| invite.max_uses == 0) { Err(BodyError::Uses) } else { Ok(()) }
    }

    fn to_values(&self) -> Vec<Value> {
        vec![
            4.into(),
            cbor::bytes(self.peer.as_bytes()),
            Value::Text(self.name.clone()),
            tags_to(&self.tags),
            self.level_cap.into(),
            cbor::option(self.expires_ms, Value::from),
            cbor::option(self.ephemeral_s, Value::from),
            cbor::option(self.invite, |invite| Value::Array(vec![invite.serial.to_value(), invite.max_uses.into()])),
        ]
    }

    fn from_value(value: Value) -> Option<Self> {
        let [_, peer, name, tags, level_cap, expires_ms, ephemeral_s, invite] = cbor::array(value)?;
        Some(Self {
            peer: peer_from(peer)?,
            name: name.into_text().ok()?,
            tags: tags_from(tags)?,
            level_cap: cbor::integer(&level_cap)?,
            expires_ms: cbor::optional(expires_ms, |value| cbor::integer(&value))?,
            ephemeral_s: cbor::optional(ephemeral_s, |value| cbor::integer(&value))?,
            invite: cbor::optional(invite, |invite| {
                let [serial, max_uses] = cbor::array(invite)?;
                Some(InviteUse { serial: Serial::from_value(serial)?, max_uses: cbor::integer(&max_uses)? })
            })?,
        })
    }
}

pub(super) fn key_from(value: Value) -> Option<PublicIdentity> {
    PublicIdentity::from_spki(&value.into_bytes().ok()?).ok()
}

pub(super) fn peer_from(value: Value) -> Option<PeerId> {
    cbor::fixed(value).map(PeerId::from_bytes)
}

pub(super) fn signature_from(value: Value) -> Option<CompositeSignature> {
    CompositeSignature::from_bytes(&value.into_bytes().ok()?).ok()
}

pub(super) fn tags_to(tags: &[String]) -> Value {
    Value::Array(tags.iter().cloned().map(Value::Text).collect())
}

pub(super) fn tags_from(value: Value) -> Option<Vec<String>> {
    cbor::list(value, super::MAX_TAGS, |tag| tag.into_text().ok())
}
