// SPDX-License-Identifier: MIT OR Apache-2.0
//! What threads share packets by; `tests/interleavings.rs` puts the model checker's in its place.

pub(crate) use std::sync::{Mutex, atomic};
