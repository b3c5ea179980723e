// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the table.

mod caps;
mod figures;
mod life;
mod model;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Point};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Failed, Inserted, Table, TableConfig};
use crate::Now;

const OWN: Point = Point::from_bytes([0; 32]);

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), unix_ms: 1_760_000_000_000 }
}

/// A contact whose first eight distinct bits from [`OWN`] are those of `bucket`: found by trying.
fn contact_in(bucket: u32, seed: u64, address: SocketAddr) -> Arc<Contact> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(u64::from(bucket)));
    let peer = PeerId::from_bytes(rng.random());
    loop {
        let contact = Contact::new(peer, Admission { week: 1, nonce: 0, out: rng.random() }, vec![address]);
        if OWN.distance(contact.node_id()).leading_zeros() == bucket {
            return Arc::new(contact);
        }
    }
}

/// A public address of its own /16 for every number below 30 000.
fn public(n: u64) -> SocketAddr {
    let [.., high, low] = n.to_be_bytes();
    SocketAddr::from(([11 + high % 100, low, 1, 1], 4242))
}

fn public_in(bucket: u32, seed: u64) -> Arc<Contact> {
    contact_in(bucket, seed, public(seed))
}

fn full_bucket(bucket: u32, now: Now) -> (Table, Vec<Arc<Contact>>) {
    let mut table = Table::new(OWN, TableConfig::default());
    let contacts: Vec<_> = (0..20).map(|seed| public_in(bucket, seed)).collect();
    for contact in &contacts {
        assert_eq!(table.insert(now, Arc::clone(contact)), Inserted::Added);
    }
    (table, contacts)
}
