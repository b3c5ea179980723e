// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab`: networks of namespaces on this machine, for tests and benches of real daemons.
//!
//! Each subcommand prints a report (`--json`: one object as the last line). Exit code 0: passed, 1: a bar was missed,
//! 2: it could not run.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use pqvpn_lab::{netns, process};

mod command;

/// Networks of namespaces on this machine, for tests and benches of real daemons.
#[derive(Debug, Parser)]
#[command(name = "pqvpn-lab", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON object as the last line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nowhere is left to tell of a closed standard error.
            _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<u8> {
    let privilege = netns::acquire()?;
    process::kill_children_on_interrupt()?;
    let report = cli.command.run(privilege)?;
    report.write(&mut io::stdout().lock(), cli.json)?;
    Ok(report.exit_code())
}
