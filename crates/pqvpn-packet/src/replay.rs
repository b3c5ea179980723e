// SPDX-License-Identifier: MIT OR Apache-2.0
//! The anti-replay window: a ring bitmap over 64-bit counters (RFC 6479).
//!
//! The window is checked before any key is derived and marked only after the packet authenticated, so a forged
//! counter can never move it.

/// Window size in bits for one path; the usable span is one word (64) less.
pub const WINDOW_BITS: usize = 8192;
/// Window size in bits when several paths with different delays are bonded.
pub const WINDOW_BITS_MULTIPATH: usize = 65536;

/// Bits per word of the ring.
const WORD_BITS: u64 = 64;

/// Why a counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplayError {
    /// A packet with this counter was accepted before.
    #[error("counter was seen before")]
    Replayed,
    /// The counter lies behind the window, so nobody can tell.
    #[error("counter is too old")]
    TooOld,
}

/// The set of accepted counters, exact for the newest `bits - 64` of them and closed below.
///
/// `u64::MAX` is never accepted: it has no successor to put the head at, and sessions end at 2^60 (COUNTER_MAX).
#[derive(Debug)]
pub struct ReplayWindow {
    /// Ring of words; a power of two of them, so that the word of a counter is a mask away.
    words: Box<[u64]>,
    /// One more than the highest marked counter; 0 = nothing marked.
    next: u64,
}

impl ReplayWindow {
    /// An empty window of `bits`, rounded up to a power of two of at least 128.
    #[must_use]
    pub fn new(bits: usize) -> Self {
        let words = bits.div_ceil(WORD_BITS as usize).max(2).next_power_of_two();
        Self { words: vec![0; words].into_boxed_slice(), next: 0 }
    }

    /// Whether `counter` could still be accepted; changes nothing.
    ///
    /// # Errors
    /// [`ReplayError`] when it was seen, or when it lies behind the window.
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        if counter == u64::MAX {
            return Err(ReplayError::TooOld);
        }
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > self.span() {
            return Err(ReplayError::TooOld);
        }
        if self.words[self.slot(counter)] & bit(counter) != 0 {
            return Err(ReplayError::Replayed);
        }
        Ok(())
    }

    /// Marks an authenticated packet's `counter` as seen. A counter behind the window changes nothing.
    pub fn mark(&mut self, counter: u64) {
        if counter == u64::MAX {
            return;
        }
        if counter >= self.next {
            self.advance(counter);
        } else if self.next - counter > self.span() {
            return;
        }
        let slot = self.slot(counter);
        self.words[slot] |= bit(counter);
    }

    /// Whether `counter` is higher than every marked one.
    #[must_use]
    pub const fn is_newest(&self, counter: u64) -> bool {
        counter >= self.next
    }

    /// Clears the words between the old head and the new one, then moves the head.
    fn advance(&mut self, counter: u64) {
        let ring = self.words.len() as u64;
        let head = self.next.saturating_sub(1) / WORD_BITS;
        let steps = (counter / WORD_BITS - head).min(ring);
        for word in head + 1..=head + steps {
            self.words[(word & (ring - 1)) as usize] = 0;
        }
        self.next = counter + 1;
    }

    /// How many counters below `next` are tracked exactly: RFC 6479 gives up one word so that it never has to shift.
    const fn span(&self) -> u64 {
        (self.words.len() as u64 - 1) * WORD_BITS
    }

    /// Index of the word that holds `counter`.
    const fn slot(&self, counter: u64) -> usize {
        ((counter / WORD_BITS) & (self.words.len() as u64 - 1)) as usize
    }
}

/// The bit of `counter` within its word.
const fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// The obvious implementation: every accepted counter in a set.
    #[derive(Default)]
    struct Naive {
        seen: HashSet<u64>,
        next: u64,
    }

    impl Naive {
        fn check(&self, counter: u64, span: u64) -> Result<(), ReplayError> {
            if counter == u64::MAX || counter < self.next && self.next - counter > span {
                return Err(ReplayError::TooOld);
            }
            if self.seen.contains(&counter) { Err(ReplayError::Replayed) } else { Ok(()) }
        }

        fn mark(&mut self, counter: u64) {
            self.seen.insert(counter);
            self.next = self.next.max(counter + 1);
        }
    }

    fn accept(window: &mut ReplayWindow, counter: u64) -> Result<(), ReplayError> {
        window.check(counter)?;
        window.mark(counter);
        Ok(())
    }

    #[test]
    fn first_packet_may_carry_any_counter_once() {
        for first in [0, 1, 63, 64, 8191, 8192, 1 << 60, u64::MAX - 1] {
            let mut window = ReplayWindow::new(WINDOW_BITS);
            assert_eq!(accept(&mut window, first), Ok(()));
            assert_eq!(accept(&mut window, first), Err(ReplayError::Replayed));
        }
    }

    #[test]
    fn edge_of_the_window_is_exact() {
        let span = WINDOW_BITS as u64 - 64;
        for head in [span, span + 1, span + 63, span + 64, 1_000_003] {
            let mut window = ReplayWindow::new(WINDOW_BITS);
            assert_eq!(accept(&mut window, head), Ok(()));
            assert_eq!(window.check(head + 1 - span), Ok(()), "oldest tracked counter below {head}");
            assert_eq!(window.check(head - span), Err(ReplayError::TooOld));
        }
    }

    #[test]
    fn a_jump_over_the_whole_ring_forgets_nothing_and_keeps_no_stale_bit() {
        let mut window = ReplayWindow::new(WINDOW_BITS);
        for counter in 0..10_000 {
            assert_eq!(accept(&mut window, counter), Ok(()));
        }
        let far = 10_000 + 5 * WINDOW_BITS as u64 + 17;
        assert_eq!(accept(&mut window, far), Ok(()));
        for counter in far - 8000..far {
            assert_eq!(accept(&mut window, counter), Ok(()), "{counter}");
        }
        assert_eq!(window.check(9_999), Err(ReplayError::TooOld));
    }

    #[test]
    fn check_alone_and_an_old_mark_change_nothing() {
        let mut window = ReplayWindow::new(WINDOW_BITS);
        assert_eq!(window.check(u64::MAX - 1), Ok(()));
        assert_eq!(window.check(5), Ok(()));
        window.mark(100_000);
        window.mark(5);
        assert!(window.is_newest(100_001) && !window.is_newest(100_000));
        assert_eq!(window.check(100_000 - 8100), Ok(()));
    }

    #[test]
    fn the_last_counter_of_all_is_never_accepted() {
        let mut window = ReplayWindow::new(WINDOW_BITS);
        assert_eq!(window.check(u64::MAX), Err(ReplayError::TooOld));
        window.mark(u64::MAX);
        assert_eq!(accept(&mut window, 3), Ok(()));
    }

    #[test]
    fn sizes_are_rounded_up() {
        for (asked, span) in [(0, 64), (128, 64), (129, 192), (8192, 8128), (65536, 65472)] {
            assert_eq!(ReplayWindow::new(asked).span(), span, "{asked}");
        }
    }

    /// Counters around a slowly moving head, with jumps of every size.
    fn walk() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => (-300_i64..80).boxed(),
            1 => (-9000_i64..9000).boxed(),
            1 => (0_i64..200_000).boxed(),
        ];
        (0_u64..200, proptest::collection::vec(step, 1..400)).prop_map(|(start, steps)| {
            let mut at = start as i64;
            steps
                .into_iter()
                .map(|step| {
                    at = (at + step).max(0);
                    at as u64
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_set(
            bits in prop_oneof![Just(128_usize), Just(256), Just(1024), Just(WINDOW_BITS)], counters in walk(),
        ) {
            let mut window = ReplayWindow::new(bits);
            let mut naive = Naive::default();
            for counter in counters {
                prop_assert_eq!(window.check(counter), naive.check(counter, window.span()), "{}", counter);
                if accept(&mut window, counter).is_ok() {
                    naive.mark(counter);
                }
            }
        }
    }
}
