// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks: the statements of a constitution, what members say of themselves, invites, codes, and the messages that
//! carry them.
//!
//! ```text
//! network id = statement id of the genesis = SHA-512/256(body bytes)
//! stream: request frame (type 32) ──► response frame (type 33)      one stream, one RPC
//! ```

pub mod act;
pub mod code;
pub mod cover;
pub mod id;
pub mod invite;
pub mod join;
pub mod member;
pub mod message;
pub mod name;
pub mod relay;
pub mod statement;

pub use crate::dht::NetworkId;
pub use act::{Act, Genesis, InviteUse, MAX_LEVEL, NewMember, Params};
pub use code::{Code, CodeError, Door};
pub use cover::{Cover, CoverSecret};
pub use id::{Serial, StatementId};
pub use invite::{Invite, InviteSecret, SignedInvite};
pub use join::{JoinRequest, JoinRequestError, PendingJoin};
pub use member::{MemberDraft, MemberRecord};
pub use message::{
    Beat, Bundle, JoinRefusal, MAX_LINE, MAX_NET_MESSAGE, MAX_STRANGER_MESSAGE, NetRequest, NetResponse, REQUEST_TYPE,
    RESPONSE_TYPE, SyncState, decode_request, decode_response, encode_request, encode_response, frame,
    parse_frame_header,
};
pub use name::{is_label, label_of, misleads, plain};
pub use relay::{Channel, RELAY_LASTS_S, RelayOpened, RelayPair, RelayRefusal};
pub use statement::{BodyError, Statement, StatementBody};

/// Most admins of a network.
pub const MAX_ADMINS: usize = 16;
/// Most members of a network.
pub const MAX_MEMBERS: usize = 4096;
/// Most statements of a constitution.
pub const MAX_STATEMENTS: usize = 65_536;
/// Most signers of one statement.
pub const MAX_SIGNERS: usize = 16;
/// Most parents of one statement.
pub const MAX_PARENTS: usize = 16;
/// Most tags of a member or an invite.
pub const MAX_TAGS: usize = 8;
/// Longest tag in bytes.
pub const MAX_TAG_LEN: usize = 32;
/// Longest reason of a revocation in bytes.
pub const MAX_REASON_LEN: usize = 128;
/// Longest name of a network or member in bytes: a DNS label (RFC 1035 §2.3.4).
pub const MAX_LABEL_LEN: usize = 63;
/// Longest life of a member record in ms: 24 h.
pub const MAX_RECORD_LIFE_MS: u64 = 24 * 3600 * 1000;
/// Most endpoints in a member record.
pub const MAX_ENDPOINTS: usize = 8;
/// Most doors in a code or an answer.
pub const MAX_DOORS: usize = 4;
/// Most addresses of a door.
pub const MAX_DOOR_ADDRESSES: usize = 4;
