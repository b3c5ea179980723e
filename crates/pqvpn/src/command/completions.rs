// SPDX-License-Identifier: MIT OR Apache-2.0
//! `completions SHELL`: a completion script on standard output.

use clap::{Arg, Command, CommandFactory};

use crate::{
    cli::{Cli, CompletionsArgs},
    context::Context,
};

pub(crate) fn run(context: &Context, args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut offered(Cli::command()), "pqvpn", &mut script);
    context.output.verbatim(&String::from_utf8_lossy(&script));
}

/// What can be typed, without what is not for people: generators offer that as well.
fn offered(command: Command) -> Command {
    let command = command.mut_subcommands(offered);
    if !command.get_arguments().any(Arg::is_hide_set) {
        return command;
    }
    let shown: Vec<Arg> = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect();
    // A definition names things for as long as the program runs.
    let name: &'static str = command.get_name().to_owned().leak();
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(name).about(about).args(shown).subcommands(command.get_subcommands().cloned())
}
