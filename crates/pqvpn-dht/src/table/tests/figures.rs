// SPDX-License-Identifier: MIT OR Apache-2.0
//! Size: bounded.

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
