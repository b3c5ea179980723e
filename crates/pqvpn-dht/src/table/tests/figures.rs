// SPDX-License-Identifier: MIT OR Apache-2.0
//! Size and speed: printed, and bounded where that cannot fail by chance.

use super::*;
use crate::table::{Entry, bucket::Bucket};

/// A table as in a network of 10 000: 20 contacts in each of ten buckets.
fn typical() -> Table {
    let mut table = Table::new(OWN, TableConfig::default());
    for bucket in 0..10 {
        for seed in 0..20 {
            table.insert(at(seed), public_in(bucket, seed + u64::from(bucket) * 20));
        }
    }
    assert_eq!(table.len(), 200);
    table
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), 40);
    let table = typical();
    let entries: usize = table.buckets.iter().map(|bucket| bucket.entries.capacity() * size_of::<Entry>()).sum();
    let bytes = size_of::<Table>() + table.buckets.capacity() * size_of::<Bucket>() + entries;
    println!("a table of {} contacts has {bytes} bytes besides the shared contacts", table.len());
    assert!(bytes < 12_000);
}

#[test]
#[ignore = "prints a time"]
fn print_closest() {
    let table = typical();
    let mut rng = StdRng::seed_from_u64(3);
    let targets: Vec<Point> = (0..1000).map(|_| Point::from_bytes(rng.random())).collect();
    let start = std::time::Instant::now();
    let mut found = 0;
    for _ in 0..100 {
        found += targets.iter().map(|target| table.closest(target, 20).len()).sum::<usize>();
    }
    println!("closest(20) of 200: {:?} each ({found} found)", start.elapsed() / 100_000);
}
