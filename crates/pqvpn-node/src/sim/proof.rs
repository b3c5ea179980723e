// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proofs of work, each searched for and checked once per process: worlds have the same nodes at the same time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use pqvpn_crypto::{
    peer_id::PeerId,
    pow::{self, Challenge, Difficulty},
};
use pqvpn_wire::dht::{Admission, NetworkId};

type About = ([u8; 32], PeerId, u32);
type Proof = (About, u64, [u8; 32]);

static FOUND: Mutex<BTreeMap<About, (u64, [u8; 32])>> = Mutex::new(BTreeMap::new());
static CHECKED: Mutex<BTreeMap<Proof, bool>> = Mutex::new(BTreeMap::new());

pub(crate) fn proof_of(network: &NetworkId, difficulty: Difficulty, peer: &PeerId, week: u32) -> Admission {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let &mut (nonce, out) = found.entry((*network.as_bytes(), *peer, week)).or_insert_with(|| {
        let challenge = Challenge { network: *network.as_bytes(), peer: *peer, week };
        pow::solve(&challenge, difficulty, 0, &|| false).expect("nobody stops the search")
    });
    Admission { week, nonce, out }
}

pub(crate) fn proof_is_true(network: &NetworkId, difficulty: Difficulty, peer: &PeerId, admission: &Admission) -> bool {
    let about = (*network.as_bytes(), *peer, admission.week);
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    *checked.entry((about, admission.nonce, admission.out)).or_insert_with(|| {
        let challenge = Challenge { network: *network.as_bytes(), peer: *peer, week: admission.week };
        pow::check(&challenge, difficulty, admission.nonce, &admission.out)
    })
}
