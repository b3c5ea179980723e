// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control contract of the PQVPN daemon: JSON model, REST server and client over a unix socket.
//!
//! All resources live under [`PREFIX`]. A request that fails answers with an [`error::ApiError`] body, whatever the
//! cause; its [`error::Code`] fixes both the HTTP status and the exit code of the command line.

#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod model;
#[cfg(feature = "server")]
pub mod server;

/// Path prefix of every resource: the version of the contract.
pub const PREFIX: &str = "/v1";

/// Schema number every JSON answer carries.
pub const SCHEMA: u32 = 1;
