// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn`: the daemon and the command line that talks to it.

mod cli;
mod command;
mod context;
mod detach;
mod failure;
mod identity;
mod logging;
mod output;
mod passphrase;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, context::Context};

fn main() -> ExitCode {
    let Cli { globals, verb } = Cli::parse();
    let context = Context::new(&globals);
    match command::run(&context, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.output.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}
