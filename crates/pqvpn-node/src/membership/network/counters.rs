// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a network counts.

/// Why something of a bundle was not taken in, with counts.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::membership) struct Counters {
    /// Statements of another network.
    pub(in crate::membership) foreign_statements: u64,
    /// Statements that do not hold.
    pub(in crate::membership) bad_statements: u64,
    /// Records of another network, of nobody we know, badly signed, or from the future.
    pub(in crate::membership) bad_records: u64,
    /// Records older than the one we hold.
    pub(in crate::membership) old_records: u64,
    /// Records of members that say more of themselves than there is to say.
    pub(in crate::membership) hurried_records: u64,
    /// Two records of one number that say different things.
    pub(in crate::membership) twin_records: u64,
    /// Invites that no admin signed.
    pub(in crate::membership) bad_invites: u64,
    /// Covers that no admin of now made.
    pub(in crate::membership) bad_covers: u64,
    /// Covers whose issuer knew more than we do.
    pub(in crate::membership) early_covers: u64,
    /// Waiting joins that no admin vouched for.
    pub(in crate::membership) bad_pending: u64,
    /// Joins refused.
    pub(in crate::membership) refused_joins: u64,
    /// Members that said without a proof that we are none.
    pub(in crate::membership) unproven: u64,
    /// Requests of somebody who is no member.
    pub(in crate::membership) not_members: u64,
    /// Introductions that prove nothing, or too many of them.
    pub(in crate::membership) bad_introductions: u64,
    /// Waiting joins that found no room.
    pub(in crate::membership) pending_full: u64,
    /// Invites dropped because there were too many.
    pub(in crate::membership) invites_full: u64,
    /// Signatures passed on to us that are false.
    pub(in crate::membership) false_signatures: u64,
    /// Messages not read because their sender passed on too many of those.
    pub(in crate::membership) unheard: u64,
    /// Statements whose signatures were shed.
    pub(in crate::membership) shed: u64,
}

impl Counters {
    pub(in crate::membership) const fn named(&self) -> [(&'static str, u64); 19] {
        [
            ("statement-foreign", self.foreign_statements),
            ("statement-bad", self.bad_statements),
            ("record-bad", self.bad_records),
            ("record-old", self.old_records),
            ("record-hurried", self.hurried_records),
            ("record-twin", self.twin_records),
            ("invite-bad", self.bad_invites),
            ("cover-bad", self.bad_covers),
            ("cover-early", self.early_covers),
            ("pending-bad", self.bad_pending),
            ("join-refused", self.refused_joins),
            ("not-a-member", self.not_members),
            ("put-out-unproven", self.unproven),
            ("introduction-bad", self.bad_introductions),
            ("pending-full", self.pending_full),
            ("invite-full", self.invites_full),
            ("signature-false", self.false_signatures),
            ("sender-unheard", self.unheard),
            ("signatures-shed", self.shed),
        ]
    }
}
