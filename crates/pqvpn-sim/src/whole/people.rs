// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may live in a world: the same identities in every one, because making keys takes long.

use std::sync::{Arc, OnceLock};

use pqvpn_crypto::identity::{Identity, IdentitySeed};

/// Most nodes of a world.
pub const MAX_NODES: usize = 16;

/// The identity of a node by its number.
///
/// # Panics
/// For a number from [`MAX_NODES`] on.
#[must_use]
pub(super) fn identity(number: usize) -> Arc<Identity> {
    static ALL: [OnceLock<Arc<Identity>>; MAX_NODES] = [const { OnceLock::new() }; MAX_NODES];
    let make = || {
        let mut seed = [0x51; 64];
        seed[0] = u8::try_from(number).expect("few nodes");
        Arc::new(Identity::from_seed(&IdentitySeed::from_bytes(&seed)).expect("every seed is one"))
    };
    Arc::clone(ALL[number].get_or_init(make))
}
