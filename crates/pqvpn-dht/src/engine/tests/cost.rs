// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an idle node costs.

use std::time::Duration;

use super::world::World;

/// One signed message with its frame: signature 4,691 bytes, header, contact; about 5 kB (dht.md).
const MESSAGE: u64 = 5000;
/// A record on top of that.
const RECORD: u64 = 7700;

#[test]
fn an_idle_node_with_a_record_of_its_own_sends_less_than_100_bytes_a_second() {
    const NODES: usize = 50;
    let mut world = World::joined(61, NODES);
    for owner in 0..NODES {
        world.publish(owner, 1);
    }
    world.run(Duration::from_secs(1800));
    world.kinds.clear();
    // A whole period of republishing, heartbeats included.
    world.run(Duration::from_secs(8 * 3600));
    let per_hour = |count: u64| count as f64 / NODES as f64 / 8.0;
    let queries: u64 = world.kinds.values().sum();
    let stores = world.kinds.get("store").copied().unwrap_or(0);
    // On the average a node answers as often as it asks.
    let bytes = queries * 2 * MESSAGE + stores * RECORD;
    let rate = per_hour(bytes) / 3600.0;
    let kinds = world.kinds.iter().map(|(kind, count)| format!("{kind} {:.1}", per_hour(*count)));
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    assert!(rate <= 100.0, "{rate:.1} B/s: {:.1} queries a node and hour: {kinds}", per_hour(queries));
}
