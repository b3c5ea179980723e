// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a table is given and what it tells.

use std::{sync::Arc, time::Duration};

use pqvpn_wire::dht::Contact;

/// Sizes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableConfig {
    /// Contacts per bucket.
    pub k: usize,
    /// Contacts that wait for a place, per bucket.
    pub replacements: usize,
    /// Public contacts of one /24 (IPv6: /48) per bucket.
    pub subnet_per_bucket: usize,
    /// Public contacts of one /24 (IPv6: /48) in the table.
    pub subnet_per_table: usize,
    /// Contacts at private addresses in the table.
    pub private: usize,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { k: 20, replacements: 20, subnet_per_bucket: 2, subnet_per_table: 10, private: 128 }
    }
}

/// What became of a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the table now.
    Added,
    /// It was in the table and has been seen again.
    Updated,
    /// It waits for a place; `probe` has been silent longest and should be asked whether it still lives.
    Full {
        /// The bucket's least recently seen contact.
        probe: Arc<Contact>,
    },
    /// It waits for a place, and all contacts of the bucket were seen a moment ago or are being probed.
    Waiting,
    /// It is not taken.
    Refused(TableRefusal),
}

/// Why a contact is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TableRefusal {
    /// The bucket has enough contacts of its /24 (/48).
    #[error("too many contacts of its subnet in the bucket")]
    Subnet,
    /// The table has enough contacts of its /24 (/48).
    #[error("too many contacts of its subnet in the table")]
    SubnetTable,
    /// A tenth of the table is of its /16 (/32).
    #[error("too many contacts of its wide subnet in the table")]
    Wide,
    /// The table has enough contacts at private addresses.
    #[error("too many contacts at private addresses")]
    Private,
    /// It claims the table's own position.
    #[error("it claims our own position")]
    Own,
    /// Too many wait for a place in this bucket.
    #[error("too many wait for a place")]
    Replacements,
}

/// What a failure led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It keeps its place for now.
    Kept,
    /// It lost its place.
    Removed {
        /// Who has it now.
        replaced_by: Option<Arc<Contact>>,
    },
    /// It was not in the table.
    Unknown,
}

/// One bucket in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSummary {
    /// Leading bits its contacts share with us.
    pub prefix: usize,
    /// Contacts.
    pub contacts: usize,
    /// Contacts that wait for a place.
    pub replacements: usize,
    /// When a contact of it was last seen, on the monotonic clock.
    pub last_seen: Option<Duration>,
}

/// How often each bound of the table took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// [`TableRefusal::Subnet`].
    pub subnet: u64,
    /// [`TableRefusal::SubnetTable`].
    pub subnet_table: u64,
    /// [`TableRefusal::Wide`].
    pub wide: u64,
    /// [`TableRefusal::Private`].
    pub private: u64,
    /// [`TableRefusal::Own`].
    pub own: u64,
    /// [`TableRefusal::Replacements`].
    pub replacements: u64,
    /// Lost contacts forgotten because too many were lost.
    pub lost: u64,
}
