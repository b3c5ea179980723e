// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a record must be before it is stored, returned or passed on (security.md 7.2): cheap rules first, signature last.

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{
    MAX_RECORD_LEN, NetworkId, Payload, Point, Record, Verifier,
    record::{HEARTBEATS, Heartbeat, MAX_ENDPOINTS, MAX_NAME_LEN, MAX_VALUE_LEN},
};

use crate::{
    Now,
    address::{AddressRefusal, Origin},
    admission,
    counters::Attack,
};

/// How far a clock may be off.
pub const SKEW_MS: u64 = 2 * 60 * 1000;
/// How long a record may be valid.
pub const MAX_LIFETIME_MS: u64 = 24 * 3600 * 1000;
const HOUR_MS: u64 = 3600 * 1000;

/// Why a record is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RecordRefusal {
    /// Longer than [`MAX_RECORD_LEN`].
    #[error("longer than {MAX_RECORD_LEN} bytes")]
    TooLong,
    /// A field is out of its bounds: name, value, or a kind this version does not know.
    #[error("a field is out of its bounds")]
    Shape,
    /// For another DHT.
    #[error("for another network")]
    Network,
    /// Of a week that is neither the owner's current nor its last one; a value has no week.
    #[error("of another week")]
    Week,
    /// Valid for no time at all, or for more than 24 h.
    #[error("valid for more than 24 hours, or never")]
    Lifetime,
    /// No longer valid.
    #[error("no longer valid")]
    Expired,
    /// Not valid yet, by more than 2 minutes.
    #[error("not valid yet")]
    Future,
    /// More endpoints than [`MAX_ENDPOINTS`].
    #[error("more than {MAX_ENDPOINTS} endpoints")]
    Endpoints,
    /// An endpoint that must not be dialled.
    #[error(transparent)]
    Endpoint(#[from] AddressRefusal),
    /// No signature at all.
    #[error("not signed")]
    Unsigned,
    /// The key is not the owner's, or the signature is not the key's.
    #[error("the signature does not hold")]
    Signature,
    /// Another record than the one asked for.
    #[error("not the record asked for")]
    Mismatch,
}

impl RecordRefusal {
    /// What to count.
    #[must_use]
    pub const fn attack(self) -> Attack {
        match self {
            Self::TooLong => Attack::RecordTooLong,
            Self::Shape => Attack::RecordShape,
            Self::Network => Attack::RecordNetwork,
            Self::Week => Attack::RecordWeek,
            Self::Lifetime => Attack::RecordLifetime,
            Self::Expired => Attack::RecordExpired,
            Self::Future => Attack::RecordFuture,
            Self::Endpoints | Self::Endpoint(_) => Attack::RecordEndpoints,
            Self::Unsigned => Attack::RecordUnsigned,
            Self::Signature => Attack::RecordBadSignature,
            Self::Mismatch => Attack::KeyMismatch,
        }
    }

    /// Whether an honest, correct responder can never hand out such a record; wrong clocks and moves are forgiven.
    #[must_use]
    pub const fn is_hostile(self) -> bool {
        !matches!(self, Self::Expired | Self::Future | Self::Week | Self::Endpoint(AddressRefusal::Private))
    }
}

/// Checks a record by every rule; only what passes may be stored, returned from a lookup, or passed on.
///
/// `origin` says who hands the record over: private endpoints count only inside one site. Use
/// [`Origin::default`] for the own record and for what must hold on the open DHT.
///
/// # Errors
/// The first rule it breaks; the signature is looked at last, since it costs the most.
pub fn check_record(
    now: Now,
    record: &Record,
    network: &NetworkId,
    origin: impl Into<Origin>,
    verifier: &dyn Verifier,
) -> Result<(), RecordRefusal> {
    if record.encoded_len() > MAX_RECORD_LEN {
        return Err(RecordRefusal::TooLong);
    }
    check_shape(record)?;
    if record.draft().network != *network {
        return Err(RecordRefusal::Network);
    }
    check_week(now, record)?;
    check_times(now, record)?;
    if let Payload::Peer(endpoints) = &record.draft().payload {
        origin.into().judge_all(&endpoints.addresses)?;
    }
    if record.signature().is_empty() {
        return Err(RecordRefusal::Unsigned);
    }
    if record.verify(verifier) { Ok(()) } else { Err(RecordRefusal::Signature) }
}

fn check_shape(record: &Record) -> Result<(), RecordRefusal> {
    match &record.draft().payload {
        Payload::Peer(endpoints) if endpoints.addresses.len() > MAX_ENDPOINTS => Err(RecordRefusal::Endpoints),
        Payload::Peer(_) => Ok(()),
        Payload::Value { name, value } => {
            let fits = !name.is_empty() && name.len() <= MAX_NAME_LEN && value.len() <= MAX_VALUE_LEN;
            if fits { Ok(()) } else { Err(RecordRefusal::Shape) }
        }
        _ => Err(RecordRefusal::Shape),
    }
}

fn check_week(now: Now, record: &Record) -> Result<(), RecordRefusal> {
    let (owner, week) = (record.owner(), record.draft().week);
    let fits = match record.draft().payload {
        // The last week's key is still where readers look whose clock is behind, and where the record was put yesterday.
        Payload::Peer(_) => {
            week.checked_add(1) == Some(admission::week(owner, now.unix_ms))
                || admission::current(owner, week, now.unix_ms)
        }
        Payload::Value { .. } | _ => week == 0,
    };
    if fits { Ok(()) } else { Err(RecordRefusal::Week) }
}

fn check_times(now: Now, record: &Record) -> Result<(), RecordRefusal> {
    let (from, until) = (record.draft().not_before_ms, record.draft().not_after_ms);
    match until.checked_sub(from) {
        Some(1..=MAX_LIFETIME_MS) => {}
        _ => return Err(RecordRefusal::Lifetime),
    }
    if until <= now.unix_ms {
        return Err(RecordRefusal::Expired);
    }
    if from > now.unix_ms.saturating_add(SKEW_MS) {
        return Err(RecordRefusal::Future);
    }
    Ok(())
}

/// Checks that a record is the one asked for; a valid record of somebody else is no answer.
///
/// # Errors
/// [`RecordRefusal::Mismatch`].
pub fn check_asked(record: &Record, key: &Point) -> Result<(), RecordRefusal> {
    if record.key() == key { Ok(()) } else { Err(RecordRefusal::Mismatch) }
}

/// Checks that a record is the one asked for and of the owner expected.
///
/// # Errors
/// [`RecordRefusal::Mismatch`].
pub fn check_owner(record: &Record, owner: &PeerId) -> Result<(), RecordRefusal> {
    if record.owner() == owner { Ok(()) } else { Err(RecordRefusal::Mismatch) }
}

/// The hour whose heartbeat a record's owner should show now: full hours since `not_before_ms`, 1 to 24.
#[must_use]
pub fn heartbeat_hour(now: Now, not_before_ms: u64) -> Option<u8> {
    let hours = now.unix_ms.checked_sub(not_before_ms)? / HOUR_MS;
    u8::try_from(hours).ok().filter(|hour| (1..=HEARTBEATS).contains(hour))
}

/// Why a heartbeat was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BeatRefusal {
    /// No such record is kept here.
    #[error("no such record")]
    Unknown,
    /// It does not lead to the record's anchor.
    #[error("the heartbeat does not fit the record")]
    False,
    /// Its hour has not come.
    #[error("the hour of the heartbeat has not come")]
    Early,
}

impl BeatRefusal {
    /// What to count, if it is an attempt at all.
    #[must_use]
    pub const fn attack(self) -> Option<Attack> {
        match self {
            Self::Unknown => None,
            Self::False => Some(Attack::HeartbeatFalse),
            Self::Early => Some(Attack::HeartbeatEarly),
        }
    }
}

/// Checks one heartbeat of a record; also for those that come with a record in a lookup.
///
/// # Errors
/// [`BeatRefusal::False`] or [`BeatRefusal::Early`].
pub fn check_heartbeat(now: Now, record: &Record, heartbeat: &Heartbeat) -> Result<(), BeatRefusal> {
    if !(1..=HEARTBEATS).contains(&heartbeat.hour) {
        return Err(BeatRefusal::False);
    }
    let due = record.draft().not_before_ms.saturating_add(u64::from(heartbeat.hour) * HOUR_MS);
    // An hour shown ahead of its time would make the record look alive when its owner no longer is.
    if due > now.unix_ms.saturating_add(SKEW_MS) {
        return Err(BeatRefusal::Early);
    }
    if heartbeat.fits(&record.draft().heartbeat_anchor) { Ok(()) } else { Err(BeatRefusal::False) }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
