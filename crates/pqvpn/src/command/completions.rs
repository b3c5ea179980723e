// SPDX-License-Identifier: MIT OR Apache-2.0
//! `completions SHELL`: a completion script on standard output.

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs},
    context::Context,
};

pub(crate) fn run(context: &Context, args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pqvpn", &mut script);
    context.output.verbatim(&String::from_utf8_lossy(&script));
}
