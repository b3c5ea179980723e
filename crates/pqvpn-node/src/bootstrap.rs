// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where discovery starts: entries, signed lists of entries, and the shelf in the state directory that keeps both.
//!
//! A node may know others from its config, from what `bootstrap add` put on the shelf, from an earlier run, from the
//! local network and from signed lists. Each of them is a hint where to dial; who answers there is proven by the link.
//! A node that knows nobody is a valid first node.
//!
//! A list never turns useless by age: after its expiry it is still used, with a warning, when nothing newer answers.

mod entry;
mod list;
mod shelf;
mod text;

use std::{collections::BTreeMap, path::Path};

pub use self::{
    entry::BootstrapEntry,
    list::{Freshness, ListDraft, ListError, MAX_ENTRIES, MAX_LIST, SignedList, Trust},
    shelf::{AddedList, Removed, Shelf, ShelfError, ShelvedList},
    text::{EntriesError, entries_from_text, entries_to_text},
};
use crate::{
    config::Config,
    dht::report::{DoorSource, NewDoor},
};

/// The nodes to start from: those of the config, those added by hand, and those of believed lists, fresh ones first.
///
/// Lists that cannot be used are logged with the reason and left out. `now_ms`: ms since 1970.
#[must_use]
pub fn doors(config: &Config, state_dir: &Path, now_ms: u64) -> Vec<NewDoor> {
    Shelf::of(config, state_dir).doors(now_ms)
}

/// One door per identity, its endpoints in the order given.
fn grouped(entries: &[BootstrapEntry], source: DoorSource, expires_ms: Option<u64>) -> Vec<NewDoor> {
    let mut order = Vec::new();
    let mut endpoints: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let known = endpoints.entry(entry.id).or_insert_with(|| {
            order.push(entry.id);
            Vec::new()
        });
        let endpoint = entry.endpoint.to_string();
        if !known.contains(&endpoint) {
            known.push(endpoint);
        }
    }
    let door = |peer| NewDoor { peer, endpoints: endpoints.remove(&peer).unwrap_or_default(), source, expires_ms };
    order.into_iter().map(door).collect()
}
