// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signed lists of bootstrap nodes: who vouches for them, for which DHT, since when and until when.
//!
//! ```text
//! file = "PQVPN-LIST/1\n" || CBOR [body: bytes, signer key (SPKI): bytes, composite signature: bytes]
//! body = CBOR [network: bytes(32), issued_ms, expires_ms, signer: bytes(32), [[PeerID: bytes(32), "host:port"], ..]]
//! ```
//! The signature is over the first line and the body, under [`SignatureLabel::BootstrapList`]. Both arrays are
//! deterministic CBOR (RFC 8949 §4.2.1): any other encoding of the same list is refused.

#[cfg(test)]
mod tests;

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureError, SignatureLabel},
    peer_id::PeerId,
};
use pqvpn_wire::dht::NetworkId;
use thiserror::Error;

use super::BootstrapEntry;
use crate::config::Endpoint;

/// Most entries of one list.
pub const MAX_ENTRIES: usize = 64;
/// Largest list in bytes: 64 of the longest names, key and signature.
pub const MAX_LIST: usize = 32 * 1024;
/// First line of every list, up to the version.
const MAGIC: &[u8] = b"PQVPN-LIST/";
/// First line of a list of this version.
const HEADER: &[u8] = b"PQVPN-LIST/1\n";
/// Nesting of the body: list, entries, entry.
const DEPTH: usize = 4;
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Dates further ahead than this say that one of two clocks is wrong.
const SKEW_MS: u64 = DAY_MS;

/// What a list says before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListDraft {
    /// Which DHT the nodes belong to.
    pub network: NetworkId,
    /// When it is signed, ms since 1970.
    pub issued_ms: u64,
    /// From when on it counts as old, ms since 1970; after `issued_ms`.
    pub expires_ms: u64,
    /// 1 to [`MAX_ENTRIES`] distinct entries.
    pub entries: Vec<BootstrapEntry>,
}

/// A list whose signature holds and whose signer is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedList {
    draft: ListDraft,
    signer: PeerId,
    bytes: Vec<u8>,
}

/// Whose lists are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'t> {
    /// Lists these identities signed.
    Signers(&'t [PeerId]),
    /// Any list: the user said so of this one.
    ThisOne,
}

/// How a list's dates fit today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Within its dates.
    Fresh,
    /// Past its expiry.
    Expired {
        /// Whole days since.
        days: u64,
    },
    /// Signed on a day that is yet to come here: one of two clocks is wrong.
    Future {
        /// Whole days ahead.
        days: u64,
    },
}

/// Why a list is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListError {
    /// Longer than any list.
    #[error("longer than {MAX_LIST} bytes")]
    TooLarge,
    /// Something else.
    #[error("not a signed list of bootstrap nodes")]
    NotAList,
    /// From a newer or older program.
    #[error("a list of a version this program does not know")]
    Version,
    /// Damaged, or not in the one encoding.
    #[error("the list is malformed: {0}")]
    Malformed(&'static str),
    /// For another DHT.
    #[error("the list is for another DHT than dht.network")]
    Network,
    /// Signed by somebody nobody here believes.
    #[error("signed by {0}, who is not in bootstrap.signers")]
    Signer(PeerId),
    /// The key in it is not the signer's.
    #[error("the key in the list is not that of its signer {0}")]
    Key(PeerId),
    /// Changed after it was signed, or never signed by that key.
    #[error("the signature does not hold: {0}")]
    Signature(#[from] SignatureError),
    /// An older list than the one of the same signer that is there already.
    #[error("{0} has signed a newer list, which is here already")]
    Superseded(PeerId),
    /// No entry, too many, or one twice.
    #[error("a list has 1 to {MAX_ENTRIES} entries, each once")]
    Entries,
    /// The dates are the wrong way round.
    #[error("a list must expire after it is issued")]
    Dates,
    /// The signature could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ListDraft {
    /// Signs the list.
    ///
    /// # Errors
    /// [`ListError::Entries`] or [`ListError::Dates`] for what no list may say, [`ListError::Identity`] if signing
    /// fails.
    pub fn sign(self, identity: &Identity) -> Result<SignedList, ListError> {
        self.check()?;
        let signer = identity.peer_id();
        let body = self.body(&signer);
        let signature = identity.sign(SignatureLabel::BootstrapList, &signed_bytes(&body))?;
        let parts = [body, identity.public().to_spki(), signature.into_bytes()].map(Value::Bytes);
        let bytes = [HEADER, &cbor(&Value::Array(parts.into()))].concat();
        if bytes.len() > MAX_LIST {
            return Err(ListError::TooLarge);
        }
        Ok(SignedList { draft: self, signer, bytes })
    }

    fn check(&self) -> Result<(), ListError> {
        let mut sorted: Vec<&BootstrapEntry> = self.entries.iter().collect();
        sorted.sort();
        let twice = sorted.windows(2).any(|pair| pair.first() == pair.last());
        if twice || !(1..=MAX_ENTRIES).contains(&self.entries.len()) {
            return Err(ListError::Entries);
        }
        if self.expires_ms <= self.issued_ms { Err(ListError::Dates) } else { Ok(()) }
    }

    fn body(&self, signer: &PeerId) -> Vec<u8> {
        let id = |peer: &PeerId| Value::Bytes(peer.as_bytes().to_vec());
        let entry = |entry: &BootstrapEntry| Value::Array(vec![id(&entry.id), Value::Text(entry.endpoint.to_string())]);
        cbor(&Value::Array(vec![
            Value::Bytes(self.network.as_bytes().to_vec()),
            self.issued_ms.into(),
            self.expires_ms.into(),
            id(signer),
            Value::Array(self.entries.iter().map(entry).collect()),
        ]))
    }
}

impl SignedList {
    /// Reads a list and checks all of it: size, shape, DHT, signer, key, signature, in this order.
    ///
    /// # Errors
    /// [`ListError`]: the first thing that is wrong.
    pub fn open(bytes: &[u8], network: &NetworkId, trust: Trust<'_>) -> Result<Self, ListError> {
        if bytes.len() > MAX_LIST {
            return Err(ListError::TooLarge);
        }
        let Some(payload) = bytes.strip_prefix(HEADER) else {
            return Err(if bytes.starts_with(MAGIC) { ListError::Version } else { ListError::NotAList });
        };
        let shape = ListError::Malformed("not three byte strings");
        let [body, key, signature] = array::<3>(payload).ok_or(shape.clone())?;
        let [body, key, signature] = [bytes_of(body), bytes_of(key), bytes_of(signature)];
        let (body, key, signature) = (body.ok_or(shape.clone())?, key.ok_or(shape.clone())?, signature.ok_or(shape)?);
        let (draft, signer) = read_body(&body)?;
        if draft.network != *network {
            return Err(ListError::Network);
        }
        if let Trust::Signers(signers) = trust
            && !signers.contains(&signer)
        {
            return Err(ListError::Signer(signer));
        }
        let public = PublicIdentity::from_spki(&key).map_err(|_| ListError::Malformed("not a public key"))?;
        if public.peer_id() != signer {
            return Err(ListError::Key(signer));
        }
        let signature = CompositeSignature::from_bytes(&signature)?;
        public.verify(SignatureLabel::BootstrapList, &signed_bytes(&body), &signature)?;
        Ok(Self { draft, signer, bytes: bytes.to_vec() })
    }

    /// What it says.
    #[must_use]
    pub const fn draft(&self) -> &ListDraft {
        &self.draft
    }

    /// Who vouches for it.
    #[must_use]
    pub const fn signer(&self) -> &PeerId {
        &self.signer
    }

    /// The file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How its dates fit `now_ms`, ms since 1970.
    #[must_use]
    pub const fn freshness(&self, now_ms: u64) -> Freshness {
        let draft = &self.draft;
        if now_ms > draft.expires_ms {
            Freshness::Expired { days: (now_ms - draft.expires_ms) / DAY_MS }
        } else if draft.issued_ms > now_ms.saturating_add(SKEW_MS) {
            Freshness::Future { days: (draft.issued_ms - now_ms) / DAY_MS }
        } else {
            Freshness::Fresh
        }
    }
}

impl Freshness {
    /// One line for people about a list that is used in spite of its dates.
    #[must_use]
    pub fn warning(self) -> Option<String> {
        match self {
            Self::Fresh => None,
            Self::Expired { days } => {
                Some(format!("expired {days} days ago; still tried when nothing else answers; ask for a new one"))
            }
            Self::Future { days } => Some(format!("dated {days} days ahead: check the clock of this machine")),
        }
    }
}

fn read_body(body: &[u8]) -> Result<(ListDraft, PeerId), ListError> {
    let wrong = || ListError::Malformed("not the fields of a list");
    let [network, issued, expires, signer, entries] = array::<5>(body).ok_or_else(wrong)?;
    let signer = peer(signer).ok_or_else(wrong)?;
    let draft = ListDraft {
        network: NetworkId::from_bytes(fixed(network).ok_or_else(wrong)?),
        issued_ms: number(&issued).ok_or_else(wrong)?,
        expires_ms: number(&expires).ok_or_else(wrong)?,
        entries: entries.into_array().map_err(|_| wrong())?.into_iter().map(read_entry).collect::<Result<_, _>>()?,
    };
    draft.check()?;
    if draft.body(&signer) == body { Ok((draft, signer)) } else { Err(ListError::Malformed("not the one encoding")) }
}

fn read_entry(value: Value) -> Result<BootstrapEntry, ListError> {
    let wrong = || ListError::Malformed("an entry is not a PeerID and host:port");
    let parts: [Value; 2] = value.into_array().ok().and_then(|parts| parts.try_into().ok()).ok_or_else(wrong)?;
    let [id, endpoint] = parts;
    let endpoint: Endpoint = endpoint.into_text().map_err(|_| wrong())?.parse().map_err(|_: String| wrong())?;
    Ok(BootstrapEntry { id: peer(id).ok_or_else(wrong)?, endpoint })
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [HEADER, body].concat()
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("writing into a Vec does not fail");
    out
}

/// An array of `N` in its one encoding, and nothing after it.
fn array<const N: usize>(bytes: &[u8]) -> Option<[Value; N]> {
    let value: Value = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH).ok()?;
    if cbor(&value) != bytes {
        return None;
    }
    value.into_array().ok()?.try_into().ok()
}

fn bytes_of(value: Value) -> Option<Vec<u8>> {
    value.into_bytes().ok()
}

fn fixed<const N: usize>(value: Value) -> Option<[u8; N]> {
    value.into_bytes().ok()?.try_into().ok()
}

fn peer(value: Value) -> Option<PeerId> {
    fixed(value).map(PeerId::from_bytes)
}

fn number(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|number| number.try_into().ok())
}
