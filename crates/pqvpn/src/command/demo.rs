// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: a whole mesh on this machine in throwaway namespaces.

use crate::{cli::DemoArgs, context::Context, failure::Failure};

/// Builds the mesh, measures it and takes it down again.
pub(crate) fn run(_context: &Context, args: &DemoArgs) -> Result<(), Failure> {
    Err(Failure::failed(
        "not-built",
        format!("no mesh of {} nodes was built", args.nodes),
        "this build has no demo",
        "two machines and `pqvpn up` on each",
    ))
}
