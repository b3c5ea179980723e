// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was attempted against this node: one counter for each rule that turned something away.

/// Lists the variants once; the enum, its order, its names and its size follow.
macro_rules! attacks {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// A rule of the DHT that was broken, or a defence that was needed.
        ///
        /// A count is not a verdict: a wrong clock, a lost packet or a restart trips some of these as well.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Attack {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Attack {
            /// Every variant, in the order of [`Counters`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The kebab-case name that status, metrics and the audit log show; never changes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

attacks! {
    /// A message longer than 32 KiB.
    EnvelopeTooLong => "envelope-too-long",
    /// Bytes that are not the one encoding of a message.
    EnvelopeMalformed => "envelope-malformed",
    /// A version of the protocol that is not spoken here.
    EnvelopeVersion => "envelope-version",
    /// A message for another DHT.
    EnvelopeNetwork => "envelope-network",
    /// The sender named inside is not the peer at the other end of the link.
    EnvelopeNotFromLink => "envelope-not-from-link",
    /// A message meant for somebody else.
    EnvelopeMisdirected => "envelope-misdirected",
    /// A message older than the clock skew allows.
    EnvelopeExpired => "envelope-expired",
    /// A message from further ahead than the clock skew allows.
    EnvelopeFuture => "envelope-future",
    /// A request that was received before.
    EnvelopeReplayed => "envelope-replayed",
    /// The memory of received requests is full, so a new one could not be told from a replay.
    ReplayGuardFull => "replay-guard-full",
    /// A response to another request.
    EnvelopeWrongAnswer => "envelope-wrong-answer",
    /// The composite signature of a message does not hold.
    EnvelopeBadSignature => "envelope-bad-signature",
    /// A response of a kind that does not answer the request.
    ResponseKind => "response-kind",

    /// A contact admitted for a week that is not now.
    AdmissionWeek => "admission-week",
    /// A contact whose claimed proof of work misses the difficulty.
    AdmissionNotMet => "admission-not-met",
    /// A contact whose proof of work was evaluated and is another.
    AdmissionFalse => "admission-false",
    /// More proofs of work to evaluate than the budget allows.
    AdmissionRate => "admission-rate",
    /// A contact at a private address, told by somebody who is not at one.
    ContactPrivateAddress => "contact-private-address",
    /// A contact at an address nobody can be reached at: loopback, link-local, multicast, reserved, port 0.
    ContactBogon => "contact-bogon",
    /// A contact without an address, or with too many.
    ContactAddressCount => "contact-address-count",
    /// A response with more contacts than asked for.
    TooManyContacts => "too-many-contacts",
    /// A sender that shows somebody else's contact as its own.
    ForeignContact => "foreign-contact",
    /// An answer from another position than the one its sender was named at.
    PositionMoved => "position-moved",

    /// One peer asked more often than it may.
    RatePeer => "rate-peer",
    /// One subnet asked more often than it may.
    RateSubnet => "rate-subnet",
    /// An address named by others that was dialled a moment ago.
    DialLimit => "dial-limit",
    /// A store for a key far from this node.
    StoreFar => "store-far",
    /// A store with a token that is not ours, not the sender's, or too old.
    StoreToken => "store-token",
    /// An owner with more records than one owner may keep here.
    QuotaOwner => "quota-owner",
    /// A subnet with more records than one subnet may keep here.
    QuotaSubnet => "quota-subnet",
    /// No room for a record farther away than all that are kept.
    StorageFull => "storage-full",

    /// A record without a signature.
    RecordUnsigned => "record-unsigned",
    /// A record whose signature does not hold for its owner's key.
    RecordBadSignature => "record-bad-signature",
    /// A record longer than 8 KiB.
    RecordTooLong => "record-too-long",
    /// A record whose fields are out of their bounds.
    RecordShape => "record-shape",
    /// A record for another DHT.
    RecordNetwork => "record-network",
    /// A peer record for another week than this or the last one, or a value with a week.
    RecordWeek => "record-week",
    /// A record that is no longer valid.
    RecordExpired => "record-expired",
    /// A record that is not valid yet.
    RecordFuture => "record-future",
    /// A record valid for more than 24 h, or for no time at all.
    RecordLifetime => "record-lifetime",
    /// A record with endpoints that are private, reserved, without a port, or too many.
    RecordEndpoints => "record-endpoints",
    /// A record that is not the one asked for: another key or another owner.
    KeyMismatch => "key-mismatch",
    /// A record older than the one that is known.
    RecordStale => "record-stale",
    /// A request by, or a record of, an identity that has been revoked or has equivocated.
    RecordRevoked => "record-revoked",
    /// Two different records with one seq, both signed by their owner.
    Equivocation => "equivocation",
    /// A heartbeat that does not lead to the record's anchor.
    HeartbeatFalse => "heartbeat-false",
    /// A heartbeat for an hour that has not come.
    HeartbeatEarly => "heartbeat-early",

    /// A rotation, revocation or equivocation that does not prove itself.
    FactUnproven => "fact-unproven",
    /// A fact dated further ahead than the clock skew allows.
    FactFuture => "fact-future",
    /// A second, different successor for one identity.
    FactContested => "fact-contested",
    /// A successor named after the identity was given up as compromised.
    FactRevoked => "fact-revoked",
    /// A fact that found the table of facts full, or one that had to leave it.
    FactsFull => "facts-full",

    /// A contact from a subnet that has its share of one bucket.
    TableSubnetBucket => "table-subnet-bucket",
    /// A contact from a subnet that has its share of the table.
    TableSubnet => "table-subnet",
    /// A contact from a /16 (IPv6: /32) that has its share of the table.
    TableWide => "table-wide",
    /// A contact at a private address when there are enough of those.
    TablePrivate => "table-private",
    /// A contact for a bucket that is full, replacements and all.
    TableFull => "table-full",
    /// A contact at this node's own position or with its own PeerID.
    TableOwn => "table-own",
    /// A contact that wants another contact's position, or a second one for its PeerID.
    TablePosition => "table-position",

    /// A reply nobody asked for.
    UnaskedReply => "unasked-reply",
    /// Contacts farther from the target than the one who named them, kept as a reserve only.
    FartherContact => "farther-contact",
    /// A responder that hands out a record no rule lets pass.
    PoisonedRecord => "poisoned-record",
    /// A responder that hands out an older record than others do.
    StaleRecord => "stale-record",
    /// A lookup that ran into its deadline.
    LookupDeadline => "lookup-deadline",
    /// Too many lookups at once.
    LookupsFull => "lookups-full",
    /// Too many queries waiting for an answer.
    QueriesFull => "queries-full",

    /// The nodes found around a key are denser than chance allows at 1 %.
    EclipseSuspected => "eclipse-suspected",
    /// The nodes found around a key are denser than chance allows at 0.1 %.
    EclipseDetected => "eclipse-detected",
    /// A peer was put into quarantine.
    QuarantineBegun => "quarantine-begun",
    /// A peer should be in quarantine, but a fifth of the table already is.
    QuarantineDenied => "quarantine-denied",
    /// A peer in quarantine, or banned, asked or was named.
    QuarantineRefused => "quarantine-refused",
    /// A peer lost its reputation for good.
    ReputationBan => "reputation-ban",
    /// An observed address, or another fact without an owner, that found no agreement.
    VoteUndecided => "vote-undecided",
    /// A bounded table of this node forgot its oldest entry to make room.
    TableForgot => "table-forgot",
}

/// Number of [`Attack`]s.
const COUNT: usize = Attack::ALL.len();

/// One count for each [`Attack`]; saturates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([u64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Counters {
    /// Counts one.
    pub fn count(&mut self, attack: Attack) {
        self.add(attack, 1);
    }

    /// Counts several at once.
    pub fn add(&mut self, attack: Attack, many: u64) {
        if let Some(count) = self.0.get_mut(attack as usize) {
            *count = count.saturating_add(many);
        }
    }

    /// How often so far.
    #[must_use]
    pub fn get(&self, attack: Attack) -> u64 {
        self.0.get(attack as usize).copied().unwrap_or(0)
    }

    /// Every count, in the order of [`Attack::ALL`], zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Attack, u64)> + '_ {
        Attack::ALL.iter().copied().zip(self.0)
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attack_has_its_own_kebab_case_name_and_its_own_count() {
        let mut counters = Counters::default();
        let mut names = BTreeSet::new();
        for (index, attack) in Attack::ALL.iter().enumerate() {
            assert_eq!(*attack as usize, index);
            assert!(names.insert(attack.name()), "{} twice", attack.name());
            assert!(attack.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", attack.name());
            counters.add(*attack, index as u64 + 1);
        }
        for (index, (attack, count)) in counters.iter().enumerate() {
            assert_eq!((attack, count), (Attack::ALL[index], index as u64 + 1));
            assert_eq!(counters.get(attack), count);
        }
        let all = COUNT as u64;
        assert_eq!(counters.total(), all * (all + 1) / 2);
    }

    #[test]
    fn a_count_stops_at_the_top() {
        let mut counters = Counters::default();
        counters.add(Attack::RatePeer, u64::MAX);
        counters.count(Attack::RatePeer);
        counters.count(Attack::RateSubnet);
        assert_eq!((counters.get(Attack::RatePeer), counters.total()), (u64::MAX, u64::MAX));
    }
}
