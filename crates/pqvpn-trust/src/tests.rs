// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rules promise, one by one, and a comparison with the reference model over random sequences.

mod bounds;
mod dated_back;
mod halves;
mod members;
mod random;
mod rules;
mod shed;
pub(crate) mod support;
mod sync;
