// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proofs of knowledge (security.md 2).

pub mod schnorr;
