// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a member that cannot be dialled is looked for.

use std::{collections::BTreeSet, sync::Arc};

use pqvpn_crypto::identity::Identity;
use pqvpn_wire::network::{MemberDraft, MemberRecord};

use super::{
    super::*,
    attacks::{identity, member, network},
};
use crate::clock;

#[test]
fn a_member_is_looked_for_further_along_the_ring_each_time_nobody_has_it() {
    let founder = identity(1);
    let mut network = network(&founder);
    let now_ms = clock::unix_millis();
    let members: Vec<_> = (2..9).map(identity).collect();
    for one in &members {
        network.act(&founder, now_ms, member(one.peer_id(), None)).unwrap();
    }
    // All but the last can be dialled from anywhere.
    let (sought, open) = members.split_last().unwrap();
    for (last, one) in (1..).zip(open) {
        let draft = MemberDraft {
            network: network.id,
            seq: 1,
            issued_ms: now_ms,
            not_after_ms: now_ms + 3_600_000,
            endpoints: vec![([8, 8, 8, last], 41_641).into()],
            head: [0; 32],
            left: false,
        };
        network.records.insert(one.peer_id(), Arc::new(MemberRecord::sign(draft, one).unwrap()));
    }
    let sought = sought.peer_id();
    let places: Vec<Vec<PeerId>> = (0..3).map(|misses| network.homes_after(&sought, misses)).collect();
    assert!(places.iter().all(|place| place.len() == 2));
    let all: BTreeSet<PeerId> = places.concat().into_iter().collect();
    assert_eq!(all, open.iter().map(Identity::peer_id).collect());
    assert_eq!(network.homes_after(&sought, 4), places[0], "and round again");
    assert_eq!(network.homes_to_dial(&sought, 1), places[1]);
    // It gets nothing out to the first ones, so that it keeps links where the second look finds it.
    for _ in 0..2 {
        places[0].iter().for_each(|home| network.reach.failed(clock::now(), *home, 0));
    }
    assert_eq!(network.homes(&sought), places[1]);
}
