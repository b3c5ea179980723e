// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built binary, as people and scripts see it: exit codes, JSON shapes, errors, files.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on says so and ends")]

mod beside;
mod config;
mod control;
mod daemon;
mod discovery;
mod general;
mod identity;
mod keys;
mod networks;
mod sandbox;
