// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several things at a time, on threads of this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does `work` for every item, at most `jobs` at a time and begun in the order `order` has; results are in the items'.
pub(super) fn spread<T: Sync, R: Send>(
    items: &[T],
    order: &[usize],
    jobs: u8,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(&items[index]);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_results_keep_the_order_of_the_items() {
        let items = [1, 2, 3, 4, 5];
        assert_eq!(spread(&items, &[4, 0, 3, 1, 2], 3, |item| item * 10), [10, 20, 30, 40, 50]);
    }
}
