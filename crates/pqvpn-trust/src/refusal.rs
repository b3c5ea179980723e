// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a statement is not taken in, and why an act would not be.

/// Why a statement was refused. What was refused may be offered again; nothing of it is kept, but for what there was no room
/// for ([`Refusal::OwnFull`], [`Refusal::VoidFull`]): that waits for an admin to stand on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It belongs to another network.
    #[error("the statement belongs to another network")]
    ForeignNetwork,
    /// A genesis that is not this network's.
    #[error("a network has one genesis")]
    SecondGenesis,
    /// The first statement is not a genesis, or has parents, a network or another seq than 0.
    #[error("not a genesis")]
    NotGenesis,
    /// It names no parent, or itself among them.
    #[error("the statement stands on nothing")]
    NoParents,
    /// Its seq is not one more than the greatest of its parents.
    #[error("the statement's sequence number does not follow from its parents")]
    BadSeq,
    /// None of its signers was ever given authority in the statements it stands on.
    #[error("no signer of the statement ever had authority")]
    NoAuthority,
    /// Every signature that could count is wrong.
    #[error("no signature on the statement is right")]
    BadSignature,
    /// The new key did not agree to the rotation, or is the old one.
    #[error("the new key did not sign the rotation")]
    BadRotation,
    /// The secret does not hash to what the genesis says.
    #[error("that is not the secret that switches the network off")]
    BadSecret,
    /// [`crate::MAX_STATEMENTS`] are held.
    #[error("the constitution is full")]
    Full,
    /// [`crate::MAX_AUTHORITY_ACTS`] are held.
    #[error("too many statements about admins")]
    AuthorityFull,
    /// The member said [`crate::MAX_OWN_ACTS`] things of itself, and no admin stands on this one.
    #[error("too many rotations and departures of one member")]
    OwnFull,
    /// [`crate::MAX_VOID`] void statements are held and this would be one more, on which no admin stands.
    #[error("too many statements of former admins")]
    VoidFull,
}

impl Refusal {
    /// A short fixed word for counters and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ForeignNetwork => "foreign_network",
            Self::SecondGenesis => "second_genesis",
            Self::NotGenesis => "not_genesis",
            Self::NoParents => "no_parents",
            Self::BadSeq => "bad_seq",
            Self::NoAuthority => "no_authority",
            Self::BadSignature => "bad_signature",
            Self::BadRotation => "bad_rotation",
            Self::BadSecret => "bad_secret",
            Self::Full => "full",
            Self::AuthorityFull => "authority_full",
            Self::OwnFull => "own_full",
            Self::VoidFull => "void_full",
        }
    }
}

/// Why an act would have no effect, asked before anybody signs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAllowed {
    /// The signer is no admin.
    #[error("only an admin may do that")]
    NotAdmin,
    /// Only the member itself may.
    #[error("only the member itself may do that")]
    NotYourself,
    /// The network is switched off.
    #[error("the network is switched off")]
    Disabled,
    /// The subject is not a member.
    #[error("not a member of the network")]
    NotAMember,
    /// The subject is a member already.
    #[error("already a member of the network")]
    AlreadyMember,
    /// The subject is an admin already.
    #[error("already an admin")]
    AlreadyAdmin,
    /// The subject is not an admin.
    #[error("not an admin")]
    SubjectNotAdmin,
    /// A network keeps at least one admin.
    #[error("a network keeps at least one admin: add another first")]
    LastAdmin,
    /// [`crate::MAX_ADMINS`].
    #[error("a network has at most 16 admins")]
    TooManyAdmins,
    /// [`crate::MAX_MEMBERS`].
    #[error("the network has as many members as it can have")]
    TooManyMembers,
    /// The invite has been used as often as it may be.
    #[error("the invite is used up")]
    UsedUp,
    /// The invite was cancelled.
    #[error("the invite was cancelled")]
    Cancelled,
    /// The subject was revoked; only another admin may bring it back.
    #[error("revoked: only another admin can bring this peer back")]
    Revoked,
    /// The name is no DNS label.
    #[error("a name has 1 to 63 of the characters a-z, 0-9 and -")]
    BadName,
    /// The quorum is 0 or more than the network has admins.
    #[error("the quorum must be between 1 and the number of admins")]
    BadQuorum,
    /// The secret does not hash to what the genesis says, or the genesis has none.
    #[error("that is not the secret that switches the network off")]
    BadSecret,
    /// There is one genesis, and it is there.
    #[error("the network is founded already")]
    Founded,
    /// This version does not know the act.
    #[error("an act of a later version")]
    Unknown,
}
