// SPDX-License-Identifier: MIT OR Apache-2.0
//! Simulations of PQVPN.

fn main() {}
