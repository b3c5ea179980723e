// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages, contacts, records and facts of the DHT: their types, their bytes, their signatures.
//!
//! ```text
//! stream: request frame ──► response frame            one stream, one RPC
//! frame:  [ signed bytes [v, net, from, to, ts_ms, nonce, re, body], composite signature ]
//! ```

pub mod contact;
pub mod envelope;
pub mod fact;
pub mod message;
pub mod point;
pub mod record;
pub mod verify;

pub use contact::{Admission, Contact, MAX_ADDRESSES, MAX_CONTACTS};
pub use envelope::{EnvelopeError, Header, ReplayError, ReplayGuard};
pub use fact::{Equivocation, Fact, MAX_FACTS_LEN, Revocation, RevocationReason, Rotation};
pub use message::{Refusal, Request, Response, Token};
pub use point::{Distance, NetworkId, Point};
pub use record::{
    Endpoints, HEARTBEATS, Heartbeat, MAX_ENDPOINTS, MAX_NAME_LEN, MAX_RECORD_LEN, MAX_VALUE_LEN, Payload, Record,
    RecordDraft, heartbeat_chain, peer_record_key, value_key,
};
pub use verify::{CompositeVerifier, Verifier};
