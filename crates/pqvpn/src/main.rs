// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn`: the daemon and the command line that talks to it.

mod allocator;
mod cli;
mod command;
mod context;
mod detach;
mod failure;
mod identity;
mod logging;
mod output;
mod passphrase;

use std::{env, process::ExitCode};

use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{cli::Cli, context::Context, failure::Failure, output::Output};

/// Verbs of later versions: whoever types one has not mistyped another.
const LATER: [&str; 17] = [
    "audit",
    "bugreport",
    "circuit",
    "console",
    "doctor",
    "exit",
    "forward",
    "log",
    "msg",
    "policy",
    "recv",
    "route",
    "run",
    "send",
    "serve",
    "service",
    "trust",
];

fn main() -> ExitCode {
    let Cli { globals, verb } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_run(&error),
    };
    let context = Context::new(&globals);
    match command::run(&context, verb) {
        Ok(()) if output::unwritten() => unwritten(&context.output),
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.output.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// What was asked for was done, and nobody can read it.
fn unwritten(output: &Output) -> ExitCode {
    let failure = Failure::failed(
        "unwritten",
        "the command was carried out, but its answer could not be written",
        "standard output takes nothing",
        "look whether the disk it goes to is full",
    );
    output.failure(&failure);
    ExitCode::from(failure.exit)
}

/// Help and version are shown; a line that makes no sense is a failure like any other.
fn not_run(error: &clap::Error) -> ExitCode {
    let help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if help || !error.use_stderr() {
        if let Err(error) = error.print() {
            output::note_unwritten(&error);
        }
        if output::unwritten() {
            return unwritten(&Output::new(false, false));
        }
        return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    let later = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if verb() == "pqvpn" => LATER.iter().find(|verb| *verb == word),
        Some(_) | None => None,
    };
    let failure = match later {
        Some(later) => Failure::usage(
            "not-in-this-version",
            "nothing was done",
            format!("`{later}` is not in this version"),
            "`pqvpn --help` shows what there is",
        ),
        None => Failure::command_line(&error.render().to_string(), &verb()),
    };
    Output::new(env::args_os().any(|argument| argument == "--json"), false).failure(&failure);
    ExitCode::from(failure.exit)
}

/// The verb as it was typed, like `pqvpn net create`.
fn verb() -> String {
    let (mut command, mut verb) = (Cli::command(), "pqvpn".to_owned());
    for word in env::args_os().skip(1) {
        if let Some(found) = word.to_str().and_then(|word| command.find_subcommand(word)).cloned() {
            verb.push(' ');
            verb.push_str(found.get_name());
            command = found;
        }
    }
    verb
}
